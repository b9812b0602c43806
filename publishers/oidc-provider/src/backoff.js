/** The delays between attempts, in milliseconds: doubled after each failure. */
export class Backoff {
  /** @param {number} first @param {number} longest */
  constructor (first, longest) {
    this.first = first
    this.longest = longest
    this.next = first
  }

  /** The delay after a failure. */
  nextDelay () {
    const delay = this.next
    this.next = Math.min(delay * 2, this.longest)
    return delay
  }

  reset () { this.next = this.first }
}
