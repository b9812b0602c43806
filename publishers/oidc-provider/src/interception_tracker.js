/**
 * Counts the foreign responses to the events of a lane, and schedules the probes of deferred events.
 *
 * An event to which an intermediary responds in place of notifier blocks its lane until it has had three such responses.
 * Then it is deferred: the lane continues without it. Deferred events are probed one at a time, in rotation. After a confirmed
 * probe all of them are published like others again. Nothing is stored: after a restart the counts start at zero.
 */
import { Backoff } from './backoff.js'

/** @typedef {import('./outbox_entry.js').OutboxEntry} OutboxEntry */

export const MAX_ATTEMPTS = 3
const FIRST_PROBE_MS = 10_000
const LONGEST_PROBE_MS = 60_000

export class InterceptionTracker {
  /** @param {() => number} now Monotonic milliseconds. */
  constructor (now = () => performance.now()) {
    this.now = now
    /** @type {Set<string>} The stems of deferred events. */
    this.deferred = new Set()
    this.stem = '' // one counter suffices: a lane retries its first event until that is confirmed or deferred
    this.attempts = 0
    this.backoff = new Backoff(FIRST_PROBE_MS, LONGEST_PROBE_MS)
    this.probeAt = 0
    this.probed = ''
  }

  /** @param {OutboxEntry} entry */
  isDeferred ({ stem }) { return this.deferred.has(stem) }

  /** Milliseconds until a deferred event is probed; Infinity if none is deferred. */
  msUntilProbe () { return this.deferred.size ? Math.max(0, this.probeAt - this.now()) : Infinity }

  /** The deferred event to probe now. @param {OutboxEntry[]} pending The deferred events in the outbox; all others are forgotten. */
  selectProbe (pending) {
    this.deferred = new Set(pending.map(({ stem }) => stem))
    const sorted = [...pending].sort((one, other) => one.stem < other.stem ? -1 : 1) // they are in the order in which they became ready
    const probe = sorted.find(({ stem }) => stem > this.probed) ?? sorted[0]
    this.probed = probe?.stem ?? ''
    this.probeAt = this.now() + this.backoff.nextDelay()
    return probe
  }

  /** Count a foreign response; returns whether it defers the event. @param {OutboxEntry} entry */
  onIntercepted (entry) {
    if (this.isDeferred(entry)) return false
    this.attempts = this.stem === entry.stem ? this.attempts + 1 : 1
    this.stem = entry.stem
    if (this.attempts < MAX_ATTEMPTS) return false
    if (!this.deferred.size) {
      this.backoff.reset()
      this.probeAt = this.now() + this.backoff.nextDelay()
    }
    this.deferred.add(entry.stem)
    return true
  }

  /** Treat all deferred events like others again if this one was deferred. @param {OutboxEntry} entry */
  onConfirmed (entry) {
    if (this.isDeferred(entry)) this.deferred.clear()
  }
}
