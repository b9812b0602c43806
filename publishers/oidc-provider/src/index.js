/** Publishes the ended sessions of node-oidc-provider to notifier. `publishLogouts` starts a publisher and returns it. */
import { AmqpTransport } from './amqp_transport.js'
import { EventBuilder } from './event_builder.js'
import { ExpiredSessionPublisher } from './expiry.js'
import { FAILURE_REASONS, withTimeout } from './publish_failure.js'
import { SessionEndHooks, supportsBackchannelUris, readSids } from './hooks.js'
import { HttpTransport } from './http_transport.js'
import { PublishedKeys } from './published_keys.js'
import { LanePublisher } from './lane_publisher.js'
import { Logger } from './logger.js'
import { JournaledExpiryStore } from './journaled_expiry_store.js'
import { LANES } from './outbox_entry.js'
import { Outbox } from './outbox.js'
import { SettingsError, readSettings } from './settings.js'
import { PendingEventResolver } from './pending_event_resolver.js'

export { SettingsError } from './settings.js'
export { redisExpiry } from './expiry.js'

/** @typedef {import('./settings.js').Settings} Settings */

const LOOKUP_TIMEOUT_MS = 2_000
const POLL_INTERVAL_MS = 20
const START_TIMEOUT_MS = 10_000
const hooked = new WeakSet()

/** @type {typeof import('../index.d.ts').publishLogouts} */
export function publishLogouts (provider, options) {
  const settings = readSettings(options)
  if (supportsBackchannelUris(provider) === false) throw new SettingsError(['provider: features.backchannelLogout.enabled must be true, otherwise ID tokens have no sid and clients have no backchannel_logout_uri. This package sends no logout requests of the library: notifier sends them'])
  if (hooked.has(provider)) throw new SettingsError(['provider: publishLogouts was already called for it'])
  hooked.add(provider)
  return new LogoutPublisher(provider, settings)
}

/** @typedef {import('../index.d.ts').Logouts} Logouts */

/** @implements {Logouts} */
class LogoutPublisher {
  #outbox
  #lanes
  #hooks
  #resolver
  /** @type {ExpiredSessionPublisher | undefined} */
  #expiry
  /** @type {JournaledExpiryStore | undefined} */
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
    const findSessionByUid = async (uid) => {
      if (typeof provider.Session.adapter.findByUid !== 'function') return undefined // the adapter cannot look it up
      return withTimeout(provider.Session.findByUid(uid), LOOKUP_TIMEOUT_MS, 'the store does not respond')
    }
    this.#resolver = new PendingEventResolver(this.#outbox, findSessionByUid, log)
    const events = new EventBuilder(provider, settings.metadata, log)
    this.#hooks = new SessionEndHooks(provider, events, this.#outbox, this.#resolver, settings.limits.signOut, log)
    this.#hooks.install(new PublishedKeys(settings, log))
    if (settings.expiry) this.#watchExpiry(provider, settings.expiry, events, findSessionByUid, log)
    this.#starting = this.#start()
  }

  get written () { return this.#outbox.counts.written }
  get published () { return this.#lanes.reduce((sum, lane) => sum + lane.published, 0) }
  get lost () { return this.#outbox.counts.lost }
  get refused () { return this.#outbox.counts.refused }
  get expired () { return this.#outbox.counts.expired }
  get waiting () { return this.#outbox.eventCount }
  get waitingInMemory () { return this.#outbox.inMemory }
  get oldest () {
    const since = this.#outbox.oldestReadyWrittenAt
    return since === undefined ? 0 : Math.max(0, (Date.now() - since) / 1_000)
  }

  /** @template T @param {() => T} work */
  inBulk = (work) => this.#hooks.bulk.run(true, work)

  close = () => {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #start () {
    await withTimeout(this.#outbox.takeOver(), START_TIMEOUT_MS, 'the disk does not respond').catch(() => {}) // the events of earlier processes are published first, unless the takeover fails or takes longer
    this.#running = this.#lanes.map((lane) => lane.run())
    this.#resolver.resolvePending().catch(() => {}) // not awaited: the store may be slow
  }

  async #close () {
    const until = performance.now() + this.#settings.limits.drain
    this.#expiry?.stop()
    await this.#starting
    await this.#memory?.flush()
    while (performance.now() < until && this.#shouldDrain()) await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS)) // this timer keeps the process running
    for (const lane of this.#lanes) lane.stop()
    await Promise.all(this.#running)
    this.#resolver.stop()
    await this.#outbox.close()
  }

  /** Whether `close` should wait: a session is being deleted, a lane that is not failing has events to publish, or any lane has ready events while some event is only in memory. */
  #shouldDrain () {
    const { pending, ready, inMemory } = this.#outbox
    for (const entry of pending) if (entry.destroyStartedAt !== undefined) return true // its session is being deleted
    return this.#lanes.some((lane) => lane.hasWork || (ready[lane.lane].size && inMemory))
  }

  /** @param {any} provider @param {NonNullable<Settings['expiry']>} options @param {EventBuilder} events @param {(uid: string) => Promise<any>} findSessionByUid @param {Logger} log */
  #watchExpiry (provider, { store, maxSessions, every, bulk }, events, findSessionByUid, log) {
    const outbox = this.#outbox
    if (!store) {
      const memory = new JournaledExpiryStore(maxSessions, () => outbox.disk.place?.path, log)
      outbox.onSessionsFound = (path) => memory.takeOver(path)
      store = this.#memory = memory
    }
    const toRemembered = (/** @type {any} */ { uid, exp, accountId, authorizations }) => ({ uid, exp, accountId, sids: readSids(authorizations) })
    const expiry = this.#expiry = new ExpiredSessionPublisher(store, every,
      async (uid) => { const session = await findSessionByUid(uid); return session && toRemembered(session) },
      async (session) => {
        for (const event of await events.build({ ...session, reason: 'session_expiration' })) await outbox.add(bulk ? 'bulk' : 'events', undefined, event)
      }, log)
    provider.on('session.saved', (/** @type {any} */ session) => {
      const { accountId, sids } = toRemembered(session)
      if (accountId && Object.keys(sids).length) expiry.remember(toRemembered(session))
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
