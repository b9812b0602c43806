/**
 * Publishes expired sessions, and contains the store that remembers sessions in Redis. The library has no hook for expired
 * sessions: each session is remembered at every save, and looked up after it has expired.
 */
import { describeError } from './publish_failure.js'

/** @typedef {import('../index.d.ts').ExpiryStore} ExpiryStore */
/** @typedef {import('../index.d.ts').RememberedSession} RememberedSession */

const BATCH_SIZE = 100
const RETRY_SECONDS = 15 // the library keeps sessions for its `clockTolerance`
const STORE_ROUNDING_SECONDS = 1 // `exp` is in whole seconds, so a store with expiry deletes a session up to this much later

export class ExpiredSessionPublisher {
  /**
   * @param {ExpiryStore} store @param {number} intervalMs
   * @param {(uid: string) => Promise<RememberedSession | undefined>} find The current session; throws if the store fails.
   * @param {(session: RememberedSession) => Promise<void>} publish
   * @param {import('./logger.js').Logger} log
   */
  constructor (store, intervalMs, find, publish, log) {
    this.store = store
    this.find = find
    this.publish = publish
    this.log = log
    this.sweeping = false
    this.timer = setInterval(() => this.sweep(), intervalMs).unref()
  }

  /** @param {RememberedSession} session */
  remember (session) {
    this.#catchAndLog(() => this.store.put(session.uid, session))
  }

  /** @param {string} uid */
  forget (uid) {
    this.#catchAndLog(() => this.store.remove(uid))
  }

  stop () { clearInterval(this.timer) }

  /** Publish the sessions that have expired. Does nothing while a former call runs. */
  async sweep () {
    if (this.sweeping) return
    this.sweeping = true
    await this.#catchAndLog(async () => {
      for (;;) {
        const now = Math.floor(Date.now() / 1_000) - STORE_ROUNDING_SECONDS
        const due = await this.store.due(now, BATCH_SIZE)
        const succeeded = await Promise.all(due.map((session) => this.#lookUpSession(session, now)))
        if (due.length < BATCH_SIZE || !succeeded.every(Boolean)) return
      }
    })
    this.sweeping = false
  }

  /** Look up a session and publish it if it has ended; returns false if the store fails. @param {RememberedSession} session @param {number} now */
  async #lookUpSession (session, now) {
    let found
    try {
      found = await this.find(session.uid)
    } catch {
      this.log.limited('store', { level: 'warn', event: 'session_store_away', message: 'the session store does not respond: the lookup of expired sessions is repeated' })
      return false
    }
    if (found) await this.store.put(session.uid, { ...found, exp: found.exp > now ? found.exp : now + RETRY_SECONDS })
    else {
      if (Object.keys(session.sids).length) await this.publish(session)
      await this.store.remove(session.uid)
    }
    return true
  }

  /** @param {() => void | Promise<void>} work */
  async #catchAndLog (work) {
    try {
      await work()
    } catch (error) {
      this.log.limited('expiry', { level: 'error', event: 'expiry_store_failed', message: `the store in expiry.store fails, so expired sessions may not be published: ${describeError(error)}` })
    }
  }
}

const PUT = "redis.call('HSET', KEYS[2], ARGV[1], ARGV[3]) redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])"
const REMOVE = "redis.call('ZREM', KEYS[1], ARGV[1]) redis.call('HDEL', KEYS[2], ARGV[1])"
const DUE = `
local uids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
if #uids == 0 then return {} end
for _, uid in ipairs(uids) do redis.call('ZADD', KEYS[1], ARGV[3], uid) end
return redis.call('HMGET', KEYS[2], unpack(uids))`
const LEASE_SECONDS = 60 // after which another process gets the session if this one died

/**
 * Keeps sessions in Redis: their ends in a sorted set, and their data in a hash.
 * @type {typeof import('../index.d.ts').redisExpiry}
 */
export function redisExpiry (redis, { key = '{notifier-sessions}' } = {}) {
  const keys = ['2', `${key}:ends`, `${key}:sessions`]
  /** @param {string} script @param {string[]} values @returns {Promise<any>} */
  const run = (script, ...values) => 'call' in redis
    ? redis.call('EVAL', script, ...keys, ...values)
    : redis.sendCommand(['EVAL', script, ...keys, ...values])
  return {
    async put (uid, session) { await run(PUT, uid, String(session.exp), JSON.stringify(session)) },
    async due (now, limit) {
      const found = await run(DUE, String(now), String(limit), String(now + LEASE_SECONDS))
      return found.filter((/** @type {unknown} */ each) => each !== null).map((/** @type {unknown} */ each) => JSON.parse(String(each)))
    },
    async remove (uid) { await run(REMOVE, uid) }
  }
}
