/**
 * Publishes the ready events of one lane on a dedicated connection, in the order of the outbox, except deferred events (see
 * InterceptionTracker). Retries each event until it is confirmed, refused or expired, or its file is missing.
 */
import { Backoff } from './backoff.js'
import { InvalidEventError } from './outbox_entry.js'
import { PublishFailure, FAILURE_REASONS } from './publish_failure.js'
import { InterceptionTracker, MAX_ATTEMPTS } from './interception_tracker.js'
import { InterceptedFailure, RefusedError } from './api_response.js'

/** @typedef {import('./outbox_entry.js').OutboxEntry} OutboxEntry */
/** @typedef {import('./amqp_transport.js').OutgoingEvent} OutgoingEvent */
/** @typedef {{publish (events: OutgoingEvent[], confirmed: (event: OutgoingEvent) => void): Promise<void>, disconnect (): void}} Transport */

const MAX_IN_FLIGHT = 100
const FIRST_DELAY_MS = 250
const LONGEST_DELAY_MS = 10_000
const MAX_IDLE_MS = 60_000

export class LanePublisher {
  /**
   * @param {import('./outbox_entry.js').Lane} lane @param {import('./outbox.js').Outbox} outbox @param {Transport} transport
   * @param {Record<import('./publish_failure.js').FailureReason, number>} failures @param {import('./logger.js').Logger} log
   */
  constructor (lane, outbox, transport, failures, log) {
    this.lane = lane
    this.outbox = outbox
    this.transport = transport
    this.failures = failures
    this.log = log
    this.published = 0
    this.failing = false
    this.backoff = new Backoff(FIRST_DELAY_MS, LONGEST_DELAY_MS)
    this.interceptions = new InterceptionTracker()
    this.stopped = false
    this.woken = false
    this.resume = () => {}
  }

  /** Start to publish again if the lane is idle. Called when an event is ready. */
  wake () {
    this.woken = true
    this.resume()
  }

  /** Whether the lane has an event to publish now. Deferred events do not count. */
  get hasWork () {
    return !this.failing && this.outbox.peekReady(this.lane, 1, (entry) => !this.interceptions.isDeferred(entry)).length > 0
  }

  async run () {
    while (!this.stopped) {
      try {
        this.woken = false
        const found = await this.#publishBatchOrProbe()
        this.backoff.reset()
        if (!found) await this.#sleep(Math.min(MAX_IDLE_MS, this.interceptions.msUntilProbe()), true)
      } catch (error) {
        if (this.stopped) return
        const { after } = this.#onFailure(error)
        await this.#sleep(after ?? this.backoff.nextDelay(), false)
      }
    }
  }

  stop () {
    this.stopped = true
    this.transport.disconnect()
    this.wake()
  }

  /** Publish the next events, or probe a deferred event; returns false if there are none. */
  async #publishBatchOrProbe () {
    const probe = this.#selectProbe()
    const entries = probe ? [probe] : await this.#expireAndPeek()
    if (!entries.length) return false
    /** @type {Map<OutgoingEvent, OutboxEntry>} */
    const sent = new Map()
    for (const [event, entry] of await Promise.all(entries.map((entry) => this.#readOutgoing(entry)))) if (event) sent.set(event, entry)
    /** @type {Promise<void>[]} */
    const removals = []
    try {
      if (sent.size) {
        await this.transport.publish([...sent.keys()], (event) => {
          const entry = /** @type {OutboxEntry} */ (sent.get(event))
          this.published += 1
          this.interceptions.onConfirmed(entry)
          removals.push(this.outbox.removePublished(entry))
        })
        this.#onSuccess()
      }
    } catch (error) {
      if (error instanceof RefusedError) await this.outbox.setAside(/** @type {OutboxEntry} */ (sent.get(error.event)), 'refused', error.message, error.event.id)
      else if (error instanceof InterceptedFailure && probe) this.#recordFailure(error) // it concerns the deferred event alone
      else {
        if (error instanceof InterceptedFailure) this.#onIntercepted(error, /** @type {OutboxEntry} */ (sent.get(error.event)))
        throw error
      }
    } finally {
      await Promise.all(removals)
    }
    return true
  }

  /** The deferred event to probe now; undefined if no probe is due. */
  #selectProbe () {
    if (this.interceptions.msUntilProbe() > 0) return undefined
    return this.interceptions.selectProbe(this.outbox.peekReady(this.lane, Infinity, (entry) => this.interceptions.isDeferred(entry)))
  }

  /** @param {InterceptedFailure} failure @param {OutboxEntry} entry */
  #onIntercepted (failure, entry) {
    const isDeferred = this.interceptions.onIntercepted(entry)
    if (this.interceptions.attempts === 1) this.backoff.reset() // each intercepted event delays the others by 1.75 s and by its requests, unless a response requests a longer wait
    if (!isDeferred) return
    this.log.log({
      level: 'warn', event: 'event_deferred', id: failure.event.id, lane: this.lane, message: `deferred after ${MAX_ATTEMPTS} responses that are not notifier’s; the other events are published. One deferred event is sent again every 10 to 60 s, in rotation: ${failure.message}`
    })
  }

  /** Return the next events to publish, after setting aside those that exceed `outbox.maxAge`. They stay in the outbox. */
  async #expireAndPeek () {
    for (;;) {
      const expiresBefore = Date.now() - this.outbox.limits.maxAge
      const entries = this.outbox.peekReady(this.lane, MAX_IN_FLIGHT, (entry) => entry.since < expiresBefore || !this.interceptions.isDeferred(entry))
      const expired = entries.filter(({ since }) => since < expiresBefore)
      if (!expired.length) return entries
      for (const entry of expired) {
        const { event } = await this.outbox.read(entry).catch(() => ({ event: undefined }))
        await this.outbox.setAside(entry, 'expired', 'it is older than outbox.maxAge', event?.id)
      }
    }
  }

  /** @param {OutboxEntry} entry @returns {Promise<[OutgoingEvent | undefined, OutboxEntry]>} */
  async #readOutgoing (entry) {
    try {
      const { event } = await this.outbox.read(entry)
      return [{ id: event.id, body: Buffer.from(JSON.stringify(event)) }, entry]
    } catch (error) {
      if (error instanceof InvalidEventError) await this.outbox.setAside(entry, 'refused', error.message)
      else this.outbox.onUnreadable(entry, error)
      return [undefined, entry]
    }
  }

  /** @param {unknown} error */
  #onFailure (error) {
    this.failing = true
    return { after: this.#recordFailure(error)?.after }
  }

  /** Count and log a failure. @param {unknown} error */
  #recordFailure (error) {
    const failure = error instanceof PublishFailure ? error : undefined
    const { message } = /** @type {Error} */ (error)
    if (failure) this.failures[failure.reason] += 1
    this.log.limited(`publish ${this.lane} ${failure?.reason}`, {
      level: 'error', event: 'publish_failed', lane: this.lane, ...(failure && { reason: failure.reason }), message: `${message}. Events are kept in the outbox`, waiting: this.outbox.ready[this.lane].size
    })
    return failure
  }

  #onSuccess () {
    if (!this.failing) return
    this.failing = false
    for (const reason of FAILURE_REASONS) if (reason !== 'intercepted') this.log.reset(`publish ${this.lane} ${reason}`) // an intercepted event fails again and again while others succeed: its failure stays limited to one record a minute
    this.log.log({ level: 'info', event: 'publish_recovered', lane: this.lane, message: 'events are published again', waiting: this.outbox.ready[this.lane].size })
  }

  /** @param {number} ms @param {boolean} wakeable Whether a new event ends the sleep. @returns {Promise<void>} */
  async #sleep (ms, wakeable) {
    const over = () => this.stopped || (wakeable && this.woken)
    if (over()) return
    await /** @type {Promise<void>} */ (new Promise((resolve) => {
      const timer = setTimeout(resolve, ms).unref()
      this.resume = () => { if (over()) { clearTimeout(timer); resolve() } }
    }))
    this.resume = () => {}
  }
}
