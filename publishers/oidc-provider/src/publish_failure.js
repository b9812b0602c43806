/** The reasons why an event was not published, with the remedy. */

/** @typedef {import('../index.d.ts').FailureReason} FailureReason */

/** @type {FailureReason[]} */
export const FAILURE_REASONS = ['unreachable', 'denied', 'timed_out', 'unroutable', 'rejected', 'disconnected', 'intercepted']

/** An attempt to publish failed; the events stay pending. */
export class PublishFailure extends Error {
  /** @param {FailureReason} reason @param {string} message @param {number} [after] Milliseconds to wait, as the server requested. */
  constructor (reason, message, after) {
    super(message)
    this.reason = reason
    this.after = after
  }
}

const TLS_CODE = /^ERR_(OSSL|SSL|TLS)_|CERT|ISSUER|SIGNATURE/

/** A failure to connect to the broker or the API. @param {string} server @param {string} code Of the error. */
export function toConnectFailure (server, code) {
  return new PublishFailure('unreachable', TLS_CODE.test(code)
    ? `no TLS connection to ${server}: ${code}. Check the files of tls, and the server's certificate`
    : `${server} cannot be reached: ${code}`)
}

/** An error's class and code, for the log. The text of a store's error may contain its URL with a password. @param {unknown} error */
export function describeError (error) {
  const { name, code } = /** @type {{name?: unknown, code?: unknown}} */ (error ?? {})
  return [typeof name === 'string' ? name : typeof error, code].filter((part) => typeof part === 'string' || typeof part === 'number').join(' ')
}

/** The result of `work`; throws a PublishFailure with the reason `timed_out` after `ms` milliseconds. @template T @param {Promise<T>} work @param {number} ms @param {string} message @returns {Promise<T>} */
export function withTimeout (work, ms, message) {
  /** @type {NodeJS.Timeout} */
  let timer
  /** @type {Promise<never>} */
  const timeout = new Promise((_resolve, reject) => { timer = setTimeout(() => reject(new PublishFailure('timed_out', message)), ms).unref() })
  return Promise.race([work, timeout]).finally(() => clearTimeout(timer))
}
