/**
 * Publishes or drops events whose sessions may live: events of a dead process, and events whose `destroy` threw or has not
 * returned for a minute. If the store fails, the lookup is repeated; a failure never means "gone". It is also repeated for a
 * session that lives, because its deletion may be in progress.
 */
import { InvalidEventError } from './outbox_entry.js'

/** @typedef {import('./outbox_entry.js').OutboxEntry} OutboxEntry */

const RETRY = 10_000
const SLOW_DESTROY = 60_000
const DELETION_MS = 5_000 // from a first answer that the session lives

export class SessionLookup {
  /**
   * @param {import('./outbox.js').Outbox} outbox @param {(uid: string) => Promise<object | undefined>} find The session; throws if nobody knows.
   * @param {import('./logger.js').Logger} log
   */
  constructor (outbox, find, log) {
    this.outbox = outbox
    this.find = find
    this.log = log
    this.looking = false
    this.timer = setInterval(() => this.look().catch(() => {}), RETRY).unref()
  }

  stop () { clearInterval(this.timer) }

  async look () {
    if (this.looking) return
    this.looking = true
    try {
      for (const entry of this.outbox.pending) {
        if (entry.destroyStartedAt !== undefined && performance.now() - entry.destroyStartedAt < SLOW_DESTROY) continue
        if (!await this.#settle(entry)) break // the store fails for the other events too
      }
    } finally {
      this.looking = false
    }
  }

  /** Whether the outcome of the session is known. @param {OutboxEntry} entry */
  async #settle (entry) {
    let session, event
    try {
      ({ session, event } = await this.outbox.read(entry))
    } catch (error) {
      if (error instanceof InvalidEventError) await this.outbox.setAside(entry, 'refused', error.message)
      return error instanceof InvalidEventError
    }
    const context = { id: event.id, lane: entry.lane }
    let lives
    const asked = performance.now() // a slow answer holds for the start of the lookup
    try {
      lives = session?.uid ? await this.find(session.uid) : undefined
    } catch {
      this.log.limited('settle', { level: 'warn', event: 'session_store_away', ...context, message: 'the session store does not answer: the lookup is repeated' })
      return false
    }
    if (!lives) {
      await this.outbox.release(entry)
      this.log.log({ level: 'info', event: 'left_over_published', ...context, message: 'the event of an earlier process is published: its session is gone' })
    } else if (entry.destroyStartedAt === undefined) {
      entry.aliveSince ??= performance.now()
      if (asked - entry.aliveSince < DELETION_MS) return true
      await this.outbox.withdraw(entry)
      this.log.log({ level: 'info', event: 'left_over_dropped', ...context, message: 'the event of an earlier process is dropped: its session still exists' })
    }
    return true
  }
}
