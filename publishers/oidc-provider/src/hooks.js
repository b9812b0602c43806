/**
 * Stores an event when oidc-provider ends a session.
 *
 * The library calls `Session.prototype.destroy` when a session ends for all its clients, except by expiry. The hook stores the
 * event before the session is deleted. `Client.prototype.backchannelLogout`, which sends the library's own logout request, is
 * replaced to publish the sign-out of a single client. The hooks throw no error of their own
 * into a request. Each call of the two methods waits at most `limits.signOut` for its event to be stored.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import { describeError, withTimeout } from './publish_failure.js'

/** @typedef {import('./outbox_entry.js').OutboxEntry} OutboxEntry */
/** @typedef {import('./event_builder.js').SessionEnd} SessionEnd */

/** The session id of each client, by `client_id`. @param {Record<string, {sid?: string}> | undefined} authorizations @returns {Record<string, string>} */
export function readSids (authorizations) {
  /** @type {Record<string, string>} */
  const sids = {}
  for (const [id, { sid }] of Object.entries(authorizations ?? {})) if (sid) sids[id] = sid
  return sids
}

export class SessionEndHooks {
  /**
   * @param {any} provider @param {import('./event_builder.js').EventBuilder} events @param {import('./outbox.js').Outbox} outbox
   * @param {import('./pending_event_resolver.js').PendingEventResolver} resolver @param {number} limit @param {import('./logger.js').Logger} log
   */
  constructor (provider, events, outbox, resolver, limit, log) {
    this.provider = provider
    this.events = events
    this.outbox = outbox
    this.resolver = resolver
    this.limit = limit
    this.log = log
    this.requests = new AsyncLocalStorage() // 8.x has no Provider.ctx
    /** @type {AsyncLocalStorage<boolean>} */
    this.bulk = new AsyncLocalStorage()
    this.seen = new WeakSet()
    /** @type {WeakMap<object, {session: object, fingerprint: string, writing: Promise<OutboxEntry[]>}>} Writes that `backchannelLogout` has started for `destroy`, by Koa context. */
    this.earlyWrites = new WeakMap()
  }

  /** @param {import('./published_keys.js').PublishedKeys} keys */
  install (keys) {
    const { provider } = this
    provider.use((/** @type {any} */ ctx, /** @type {() => Promise<any>} */ next) => {
      this.seen.add(ctx)
      return this.requests.run(ctx, async () => {
        try {
          await next()
          this.#addKeysToJwks(ctx, keys)
          this.#checkDiscovery(ctx)
        } finally {
          const early = this.#takeEarlyWrite(ctx)
          if (early) this.#resolveAfterWrite(early.writing) // `destroy` was not called in this request: the lookup decides about the event
        }
      })
    })
    provider.on('end_session.success', (/** @type {any} */ ctx) => {
      if (this.seen.has(ctx)) return
      this.log.limited('order', { level: 'error', event: 'called_too_late', message: 'publishLogouts() was called after callback() or listen(): clients may be notified twice, and notifier\'s keys are not in the JWK Set. Call it right after `new Provider`' })
    })
    this.#wrapDestroy(provider.Session.prototype)
    this.#replaceBackchannelLogout(provider.Client.prototype)
  }

  /** @param {any} prototype */
  #wrapDestroy (prototype) {
    const hooks = this
    const { destroy } = prototype
    prototype.destroy = async function (/** @type {unknown[]} */ ...values) {
      const writing = hooks.#getOrStartWrite(this)
      if (writing) await hooks.#waitForWrite(writing)
      let result
      try {
        result = await destroy.apply(this, values)
      } catch (error) { // the session may or may not exist
        if (writing) hooks.#resolveAfterWrite(writing)
        throw error
      }
      writing?.then((entries) => Promise.all(entries.map((entry) => hooks.outbox.markReady(entry))))
      return result
    }
  }

  /** @param {any} prototype */
  #replaceBackchannelLogout (prototype) {
    const hooks = this
    prototype.backchannelLogout = async function (/** @type {string} */ accountId, /** @type {string | undefined} */ sid) {
      const ctx = hooks.#currentContext()
      const isUserLogout = ctx?.oidc?.route === 'end_session_confirm'
      if (isUserLogout && ctx.oidc.params?.logout) return hooks.#startWriteBeforeDestroy(ctx) // all clients are signed out: `destroy` publishes the event
      const uid = isUserLogout ? ctx.oidc.session?.uid ?? '' : ''
      await hooks.#waitForWrite(hooks.#storeEvents({ uid, accountId, sids: { [this.clientId]: sid }, reason: isUserLogout ? 'user_logout' : 'terminated' }, false))
    }
  }

  /** Start the write now, so that it runs while the library revokes grants before `destroy`. @param {any} ctx */
  #startWriteBeforeDestroy (ctx) {
    const { session } = ctx.oidc
    if (this.earlyWrites.has(ctx) || !session || !this.seen.has(ctx)) return
    const writing = this.#getOrStartWrite(session)
    if (writing) this.earlyWrites.set(ctx, { session, fingerprint: sessionFingerprint(session), writing })
  }

  /** @param {any} ctx */
  #takeEarlyWrite (ctx) {
    const early = ctx && this.earlyWrites.get(ctx)
    if (early) this.earlyWrites.delete(ctx)
    return early
  }

  /** Return the write that `backchannelLogout` has started for this session, or start one; undefined if there is no client to notify. @param {any} session @returns {Promise<OutboxEntry[]> | undefined} */
  #getOrStartWrite (session) {
    const ctx = this.#currentContext()
    const early = this.#takeEarlyWrite(ctx)
    if (early?.session === session && early?.fingerprint === sessionFingerprint(session)) return early.writing
    if (early) this.#resolveAfterWrite(early.writing)
    const { uid, accountId } = session
    const sids = readSids(session.authorizations)
    if (!accountId || !Object.keys(sids).length) return undefined
    const reason = ctx?.oidc?.route === 'end_session_confirm' ? 'user_logout' : 'terminated'
    return this.#storeEvents({ uid, accountId, sids, reason }, true)
  }

  /** Look up the session of these events once they are stored. @param {Promise<OutboxEntry[]>} writing */
  #resolveAfterWrite (writing) {
    writing.then((entries) => {
      for (const entry of entries) entry.destroyStartedAt = undefined
      return this.resolver.resolvePending()
    }).catch(() => {})
  }

  /** Store the events of a session end; never rejects. @param {SessionEnd} end @param {boolean} pending @returns {Promise<OutboxEntry[]>} */
  async #storeEvents (end, pending) {
    try {
      const lane = this.bulk.getStore() ? 'bulk' : 'events'
      const events = await this.events.build(end)
      return await Promise.all(events.map(async (event) => {
        const entry = await this.outbox.add(lane, pending ? { uid: end.uid } : undefined, event)
        if (pending) entry.destroyStartedAt = performance.now()
        return entry
      }))
    } catch (error) {
      this.log.limited('building', { level: 'error', event: 'event_lost', message: `LOST: the event of a sign-out cannot be created: ${describeError(error)}` }, 1_000)
      this.outbox.counts.lost += 1
      return []
    }
  }

  /** @param {Promise<unknown>} writing */
  async #waitForWrite (writing) {
    try {
      await withTimeout(writing, this.limit, 'the event is not stored yet')
    } catch {
      this.log.limited('late', { level: 'error', event: 'sign_out_not_held_up', message: `an event was not written within ${this.limit} ms: the sign-out continued, and the event is written later. Check the outbox's disk and the client store` })
    }
  }

  /** The Koa context of the current request. @returns {any} */
  #currentContext () {
    return this.requests.getStore() ?? this.provider.constructor.ctx
  }

  /** @param {any} ctx @param {import('./published_keys.js').PublishedKeys} keys */
  #addKeysToJwks (ctx, keys) {
    try {
      if (ctx.oidc?.route === 'jwks' && Array.isArray(ctx.body?.keys)) ctx.body = { ...ctx.body, keys: keys.addTo(ctx.body.keys) }
    } catch (error) {
      this.log.limited('answer', { level: 'error', event: 'keys_not_shown', message: `notifier's keys could not be added to the JWK Set: ${/** @type {Error} */ (error).message}` })
    }
  }

  /** @param {any} ctx */
  #checkDiscovery (ctx) {
    if (ctx.oidc?.route !== 'discovery' || !ctx.body || ctx.body.backchannel_logout_supported) return
    this.log.limited('feature', { level: 'error', event: 'backchannel_logout_off', message: 'features.backchannelLogout.enabled is off: no ID token has a sid, and clients have no backchannel_logout_uri. Enable it' })
  }
}

/** Serialise uid, account and sids to detect a changed session. @param {any} session */
const sessionFingerprint = ({ uid, accountId, authorizations }) => JSON.stringify([uid, accountId, readSids(authorizations)])

/** Whether the client schema accepts `backchannel_logout_uri`; undefined if unknown. @param {any} provider */
export function supportsBackchannelUris (provider) {
  try {
    const client = new provider.Client.Schema({ client_id: 'notifier', redirect_uris: ['https://client.example.com/cb'], client_secret: 'x'.repeat(64), backchannel_logout_uri: 'https://client.example.com/' })
    return client.backchannel_logout_uri !== undefined
  } catch {
    return undefined
  }
}
