/** Has node-oidc-provider publish ended sessions to notifier: what is wired to what, and what the caller gets. */
import { AmqpTransport } from './amqp_transport.js'
import { EventBuilder } from './event_builder.js'
import { Expiry } from './expiry.js'
import { FAILURE_REASONS, withTimeout } from './publish_failure.js'
import { Hooks, supportsBackchannelUris, readSids } from './hooks.js'
import { HttpTransport } from './http_transport.js'
import { PublishedKeys } from './published_keys.js'
import { LanePublisher } from './lane_publisher.js'
import { Logger } from './logger.js'
import { MemoryExpiryStore } from './memory_expiry_store.js'
import { LANES } from './outbox_entry.js'
import { Outbox } from './outbox.js'
import { SettingsError, readSettings } from './settings.js'
import { SessionLookup } from './session_lookup.js'

export { SettingsError } from './settings.js'
export { redisExpiry } from './expiry.js'

/** @typedef {import('./settings.js').Settings} Settings */

const LOOKUP_TIMEOUT = 2_000
const POLL = 20
const START = 10_000
const hooked = new WeakSet()

/** @type {typeof import('../index.d.ts').publishLogouts} */
export function publishLogouts (provider, options) {
  const settings = readSettings(options)
  if (supportsBackchannelUris(provider) === false) throw new SettingsError(['provider: features.backchannelLogout.enabled must be true, else no ID token has a sid and no client a URI; the library itself then calls nobody'])
  if (hooked.has(provider)) throw new SettingsError(['provider: publishLogouts was called for it before'])
  hooked.add(provider)
  return new Service(provider, settings)
}

/** @typedef {import('../index.d.ts').Logouts} Logouts */

/** @implements {Logouts} */
class Service {
  #outbox
  #lanes
  #hooks
  #settlement
  /** @type {Expiry | undefined} */
  #expiry
  /** @type {MemoryExpiryStore | undefined} */
  #memory
  #settings
  /** @type {Promise<void>} */
  #starting
  /** @type {Promise<void>[]} */
  #running = []
  /** @type {Promise<void> | undefined} */
  #closing

  /** @param {any} provider @param {Settings} settings */
  constructor (provider, settings) {
    const log = new Logger(settings.log)
    this.#settings = settings
    this.failures = /** @type {Record<import('./publish_failure.js').FailureReason, number>} */ (Object.fromEntries(FAILURE_REASONS.map((reason) => [reason, 0])))
    this.#outbox = new Outbox(settings, log, () => { for (const lane of this.#lanes) lane.wake() }, provider.issuer)
    this.#lanes = LANES.map((lane) => new LanePublisher(lane, this.#outbox, createTransport(settings, lane), this.failures, log))
    /** @param {string} uid */
    const find = async (uid) => {
      if (typeof provider.Session.adapter.findByUid !== 'function') return undefined // whether it lives cannot be looked up
      return withTimeout(provider.Session.findByUid(uid), LOOKUP_TIMEOUT, 'the store does not answer')
    }
    this.#settlement = new SessionLookup(this.#outbox, find, log)
    const events = new EventBuilder(provider, settings.metadata, log)
    this.#hooks = new Hooks(provider, events, this.#outbox, this.#settlement, settings.limits.signOut, log)
    this.#hooks.install(new PublishedKeys(settings, log))
    if (settings.expiry) this.#watchExpiry(provider, settings.expiry, events, find, log)
    this.#starting = this.#start()
  }

  get written () { return this.#outbox.counts.written }
  get published () { return this.#lanes.reduce((sum, lane) => sum + lane.published, 0) }
  get lost () { return this.#outbox.counts.lost }
  get refused () { return this.#outbox.counts.refused }
  get expired () { return this.#outbox.counts.expired }
  get waiting () { return this.#outbox.waiting }
  get waitingInMemory () { return this.#outbox.inMemory }
  get oldest () {
    const since = this.#outbox.oldest
    return since === undefined ? 0 : Math.max(0, (Date.now() - since) / 1_000)
  }

  /** @template T @param {() => T} work */
  inBulk = (work) => this.#hooks.bulk.run(true, work)

  close = () => {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #start () {
    await withTimeout(this.#outbox.takeOver(), START, 'the disk does not answer').catch(() => {}) // what is left comes first, unless it cannot be had
    this.#running = this.#lanes.map((lane) => lane.run())
    this.#settlement.look().catch(() => {}) // it waits for the store
  }

  async #close () {
    const until = performance.now() + this.#settings.limits.drain
    this.#expiry?.stop()
    await this.#starting
    await this.#memory?.flush()
    while (performance.now() < until && this.#drains()) await new Promise((resolve) => setTimeout(resolve, POLL)) // holds the process, as nothing else of ours does
    for (const lane of this.#lanes) lane.stop()
    await Promise.all(this.#running)
    this.#settlement.stop()
    await this.#outbox.close()
  }

  /** Whether it is worth waiting: what is in files and cannot be published now is not. */
  #drains () {
    const { pending, ready, inMemory } = this.#outbox
    for (const entry of pending) if (entry.destroyStartedAt !== undefined) return true // its session is about to end
    return this.#lanes.some((lane) => lane.drains || (ready[lane.lane].size && inMemory))
  }

  /** @param {any} provider @param {NonNullable<Settings['expiry']>} options @param {EventBuilder} events @param {(uid: string) => Promise<any>} find @param {Logger} log */
  #watchExpiry (provider, { store, maxSessions, every, bulk }, events, find, log) {
    const outbox = this.#outbox
    if (!store) {
      const memory = new MemoryExpiryStore(maxSessions, () => outbox.disk.place?.path, log)
      outbox.remembered = (path) => memory.inherit(path)
      store = this.#memory = memory
    }
    const remembered = (/** @type {any} */ { uid, exp, accountId, authorizations }) => ({ uid, exp, accountId, sids: readSids(authorizations) })
    const expiry = this.#expiry = new Expiry(store, every,
      async (uid) => { const session = await find(uid); return session && remembered(session) },
      async (session) => {
        for (const event of await events.build({ ...session, reason: 'session_expiration' })) await outbox.add(bulk ? 'bulk' : 'events', undefined, event)
      }, log)
    provider.on('session.saved', (/** @type {any} */ session) => {
      const { accountId, sids } = remembered(session)
      if (accountId && Object.keys(sids).length) expiry.remember(remembered(session))
      else if (accountId) expiry.forget(session.uid)
    })
    provider.on('session.destroyed', (/** @type {any} */ { uid, accountId }) => { if (accountId) expiry.forget(uid) })
  }
}

/** @param {Settings} settings @param {import('./outbox_entry.js').Lane} lane */
function createTransport (settings, lane) {
  if (!settings.address.amqp) return new HttpTransport(settings, lane)
  return new AmqpTransport(settings, lane === 'bulk' ? settings.bulkExchange : settings.exchange)
}
