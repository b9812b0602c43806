/**
 * Publishes or drops events whose sessions may live: events of a dead process, and events whose `destroy` threw or has not
 * returned for a minute. If the store fails, the lookup is repeated; a failure never means "gone". It is also repeated for a
 * session that lives, because its deletion may be in progress.
 */
import { NoEvent } from './entry.js'

/** @typedef {import('./entry.js').Entry} Entry */

const AGAIN = 10_000
const SLOW = 60_000
const SETTLES = 5_000 // from a first answer that the session lives

export class Settlement {
  /**
   * @param {import('./outbox.js').Outbox} outbox @param {(uid: string) => Promise<object | undefined>} find The session; throws if nobody knows.
   * @param {import('./log.js').Logger} log
   */
  constructor (outbox, find, log) {
    this.outbox = outbox
    this.find = find
    this.log = log
    this.looking = false
    this.timer = setInterval(() => this.look().catch(() => {}), AGAIN).unref()
  }

  stop () { clearInterval(this.timer) }

  async look () {
    if (this.looking) return
    this.looking = true
    try {
      for (const entry of this.outbox.pending) {
        if (entry.ending !== undefined && performance.now() - entry.ending < SLOW) continue
        if (!await this.#settle(entry)) break // the store fails for the other events too
      }
    } finally {
      this.looking = false
    }
  }

  /** Whether the outcome of the session is known. @param {Entry} entry */
  async #settle (entry) {
    let session, event
    try {
      ({ session, event } = await this.outbox.read(entry))
    } catch (error) {
      if (error instanceof NoEvent) await this.outbox.setAside(entry, 'refused', error.message)
      return error instanceof NoEvent
    }
    const context = { id: event.id, lane: entry.lane }
    let lives
    const asked = performance.now() // a slow answer holds for the start of the lookup
    try {
      lives = session?.uid ? await this.find(session.uid) : undefined
    } catch {
      this.log.again('settle', { level: 'warn', event: 'session_store_away', ...context, message: 'the session store does not answer: the lookup is repeated' })
      return false
    }
    if (!lives) {
      await this.outbox.release(entry)
      this.log.tell({ level: 'info', event: 'left_over_published', ...context, message: 'left over, and its session is gone: published' })
    } else if (entry.ending === undefined) {
      entry.lived ??= performance.now()
      if (asked - entry.lived < SETTLES) return true
      await this.outbox.withdraw(entry)
      this.log.tell({ level: 'info', event: 'left_over_dropped', ...context, message: 'left over, and its session lives: dropped' })
    }
    return true
  }
}
