/** Publishes one lane on a dedicated connection: oldest first, repeated until confirmed. */
import { Failure } from './failure.js'
import { Unacceptable } from './http.js'
import { NoEvent } from './entry.js'
import { codeOf } from './place.js'

/** @typedef {import('./entry.js').Entry} Entry */
/** @typedef {import('./amqp.js').Outgoing} Outgoing */
/** @typedef {{publish (events: Outgoing[], confirmed: (event: Outgoing) => void): Promise<void>, drop (): void}} Transport */

const IN_FLIGHT = 100
const FIRST_PAUSE = 250
const LONGEST_PAUSE = 10_000
const IDLE = 60_000

export class LanePublisher {
  /**
   * @param {import('./entry.js').Lane} lane @param {import('./outbox.js').Outbox} outbox @param {Transport} transport
   * @param {Record<import('./failure.js').FailureReason, number>} failures @param {import('./log.js').Logger} log
   */
  constructor (lane, outbox, transport, failures, log) {
    this.lane = lane
    this.outbox = outbox
    this.transport = transport
    this.failures = failures
    this.log = log
    this.published = 0
    this.failing = false
    this.stopped = false
    this.woken = false
    this.resume = () => {}
  }

  /** There is something to publish. */
  wake () {
    this.woken = true
    this.resume()
  }

  async run () {
    let pause = FIRST_PAUSE
    while (!this.stopped) {
      try {
        this.woken = false
        const some = await this.#publishSome()
        pause = FIRST_PAUSE
        if (!some) await this.#sleep(IDLE, true)
      } catch (error) {
        if (this.stopped) return
        const { after } = this.#failed(error)
        await this.#sleep(after ?? pause, false)
        if (after === undefined) pause = Math.min(pause * 2, LONGEST_PAUSE)
      }
    }
  }

  stop () {
    this.stopped = true
    this.transport.drop()
    this.wake()
  }

  /** Whether there was anything. */
  async #publishSome () {
    const entries = await this.#unexpired()
    if (!entries.length) return false
    /** @type {Map<Outgoing, Entry>} */
    const sent = new Map()
    for (const [event, entry] of await Promise.all(entries.map((entry) => this.#outgoing(entry)))) if (event) sent.set(event, entry)
    /** @type {Promise<void>[]} */
    const done = []
    try {
      if (sent.size) {
        await this.transport.publish([...sent.keys()], (event) => {
          this.published += 1
          done.push(this.outbox.published(/** @type {Entry} */ (sent.get(event))))
        })
        this.#recovered()
      }
    } catch (error) {
      if (!(error instanceof Unacceptable)) throw error
      await this.outbox.setAside(/** @type {Entry} */ (sent.get(error.event)), 'refused', error.message, error.event.id)
    } finally {
      await Promise.all(done)
    }
    return true
  }

  /** The oldest that may still be published; what is too old is set aside. */
  async #unexpired () {
    for (;;) {
      const entries = this.outbox.next(this.lane, IN_FLIGHT)
      const oldest = Date.now() - this.outbox.limits.maxAge
      const expired = entries.filter(({ since }) => since < oldest)
      if (!expired.length) return entries
      for (const entry of expired) {
        const { event } = await this.outbox.read(entry).catch(() => ({ event: undefined }))
        await this.outbox.setAside(entry, 'expired', 'it has waited for longer than outbox.maxAge', event?.id)
      }
    }
  }

  /** @param {Entry} entry @returns {Promise<[Outgoing | undefined, Entry]>} */
  async #outgoing (entry) {
    try {
      const { event } = await this.outbox.read(entry)
      return [{ id: event.id, body: Buffer.from(JSON.stringify(event)) }, entry]
    } catch (error) {
      if (error instanceof NoEvent) await this.outbox.setAside(entry, 'refused', error.message)
      else if (codeOf(error) === 'ENOENT') this.outbox.missing(entry)
      else throw error
      return [undefined, entry]
    }
  }

  /** @param {unknown} error */
  #failed (error) {
    const failure = error instanceof Failure ? error : undefined
    const { message } = /** @type {Error} */ (error)
    this.failing = true
    if (failure) this.failures[failure.reason] += 1
    this.log.again(`publish ${this.lane} ${failure?.reason}`, {
      level: 'error', event: 'publish_failed', lane: this.lane, ...(failure && { reason: failure.reason }), message: `${message}. Events wait in the outbox`, waiting: this.outbox.ready[this.lane].size
    })
    return { after: failure?.after }
  }

  #recovered () {
    if (!this.failing) return
    this.failing = false
    this.log.over(`publish ${this.lane}`)
    this.log.tell({ level: 'info', event: 'publish_recovered', lane: this.lane, message: 'events are published again', waiting: this.outbox.ready[this.lane].size })
  }

  /** @param {number} ms @param {boolean} wakeable By a new event. @returns {Promise<void>} */
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
