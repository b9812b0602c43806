/** Why an event was not published, and the way out. */

/** @typedef {import('../index.d.ts').FailureReason} FailureReason */

/** @type {FailureReason[]} */
export const REASONS = ['unreachable', 'denied', 'timed_out', 'unroutable', 'rejected', 'disconnected', 'intercepted']

/** A try to publish failed; the events stay. */
export class Failure extends Error {
  /** @param {FailureReason} reason @param {string} message @param {number} [after] Milliseconds that the other side asks us to wait. */
  constructor (reason, message, after) {
    super(message)
    this.reason = reason
    this.after = after
  }
}

/** An error's class and code, for the log: the text of a store's error may have its URL, with a password. @param {unknown} error */
export function kindOf (error) {
  const { name, code } = /** @type {{name?: unknown, code?: unknown}} */ (error ?? {})
  return [typeof name === 'string' ? name : typeof error, code].filter((part) => typeof part === 'string' || typeof part === 'number').join(' ')
}

/** What `work` gives, or a Failure `timed_out` after so many milliseconds. @template T @param {Promise<T>} work @param {number} ms @param {string} what @returns {Promise<T>} */
export function within (work, ms, what) {
  /** @type {NodeJS.Timeout} */
  let timer
  /** @type {Promise<never>} */
  const late = new Promise((_resolve, reject) => { timer = setTimeout(() => reject(new Failure('timed_out', what)), ms).unref() })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}
