/** Why an event was not published, and the way out. */

/** @typedef {import('../index.d.ts').FailureReason} FailureReason */

/** @type {FailureReason[]} */
export const REASONS = ['unreachable', 'denied', 'timed_out', 'unroutable', 'rejected', 'disconnected']

/** A try to publish failed; the events stay. */
export class Failure extends Error {
  /** @param {FailureReason} reason @param {string} message @param {number} [after] Milliseconds that the other side asks us to wait. */
  constructor (reason, message, after) {
    super(message)
    this.reason = reason
    this.after = after
  }
}

/** What `work` gives, or a Failure `timed_out` after so many milliseconds. @template T @param {Promise<T>} work @param {number} ms @param {string} what @returns {Promise<T>} */
export function within (work, ms, what) {
  /** @type {NodeJS.Timeout} */
  let timer
  /** @type {Promise<never>} */
  const late = new Promise((_resolve, reject) => { timer = setTimeout(() => reject(new Failure('timed_out', what)), ms).unref() })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}
