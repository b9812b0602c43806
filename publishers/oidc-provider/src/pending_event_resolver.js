/**
 * Publishes or drops events whose sessions may still exist, and sets aside invalid ones: events of a dead process, and events
 * whose `destroy` was not called, threw, or has not returned for a minute. If the store fails, the lookup is repeated; a failure never counts as an ended session. It is also
 * repeated for a session that exists, because its deletion may be in progress.
 */
import { InvalidEventError } from './outbox_entry.js'

/** @typedef {import('./outbox_entry.js').OutboxEntry} OutboxEntry */

const RETRY_INTERVAL_MS = 10_000
const SLOW_DESTROY_MS = 60_000
const DELETION_TIMEOUT_MS = 5_000 // since the store first returned the session

export class PendingEventResolver {
  /**
   * @param {import('./outbox.js').Outbox} outbox @param {(uid: string) => Promise<object | undefined>} findSessionByUid Returns the session, or undefined if it has ended; throws if the store fails.
   * @param {import('./logger.js').Logger} log
   */
  constructor (outbox, findSessionByUid, log) {
    this.outbox = outbox
    this.findSessionByUid = findSessionByUid
    this.log = log
    this.running = false
    this.timer = setInterval(() => this.resolvePending().catch(() => {}), RETRY_INTERVAL_MS).unref()
  }

  stop () { clearInterval(this.timer) }

  /** Look up the sessions of all pending events, and publish or drop each event. Does nothing while a former call runs. */
  async resolvePending () {
    if (this.running) return
    this.running = true
    try {
      for (const entry of this.outbox.pending) {
        if (entry.destroyStartedAt !== undefined && performance.now() - entry.destroyStartedAt < SLOW_DESTROY_MS) continue
        if (!await this.#resolve(entry)) break // the store fails for the other events too
      }
    } finally {
      this.running = false
    }
  }

  /** Publish an event if its session has ended, drop it if the session still exists, or set it aside if it is invalid; returns false if the store fails. @param {OutboxEntry} entry */
  async #resolve (entry) {
    let session, event
    try {
      ({ session, event } = await this.outbox.read(entry))
    } catch (error) {
      if (error instanceof InvalidEventError) await this.outbox.setAside(entry, 'refused', error.message)
      else this.outbox.onUnreadable(entry, error)
      return true
    }
    const context = { id: event.id, lane: entry.lane }
    let found
    const startedAt = performance.now() // a slow result describes the start of the lookup
    try {
      found = session?.uid ? await this.findSessionByUid(session.uid) : undefined
    } catch {
      this.log.limited('settle', { level: 'warn', event: 'session_store_away', ...context, message: 'the session store does not respond: the lookup is repeated' })
      return false
    }
    if (!found) {
      await this.outbox.markReady(entry)
      this.log.log({ level: 'info', event: 'left_over_published', ...context, message: 'an undecided event is published: its session has ended' })
    } else if (entry.destroyStartedAt === undefined) {
      entry.aliveSince ??= performance.now()
      if (startedAt - entry.aliveSince < DELETION_TIMEOUT_MS) return true
      await this.outbox.discard(entry)
      this.log.log({ level: 'info', event: 'left_over_dropped', ...context, message: 'an undecided event is dropped: its session still exists' })
    }
    return true
  }
}
