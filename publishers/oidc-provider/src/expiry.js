/**
 * Publishes expired sessions, for which the library has no hook: each session is remembered at every save, and looked up
 * after its end.
 */
import { describeError } from './publish_failure.js'

/** @typedef {import('../index.d.ts').ExpiryStore} ExpiryStore */
/** @typedef {import('../index.d.ts').RememberedSession} RememberedSession */

const BATCH_SIZE = 100
const RETRY = 15 // seconds; the library lets sessions live on for its `clockTolerance`
const ROUNDED = 1 // second; `exp` is whole, and a store that deletes by itself does so up to this much later

export class Expiry {
  /**
   * @param {ExpiryStore} store @param {number} every
   * @param {(uid: string) => Promise<RememberedSession | undefined>} find The current session; throws if the store fails.
   * @param {(session: RememberedSession) => Promise<void>} publish
   * @param {import('./logger.js').Logger} log
   */
  constructor (store, every, find, publish, log) {
    this.store = store
    this.find = find
    this.publish = publish
    this.log = log
    this.sweeping = false
    this.timer = setInterval(() => this.sweep(), every).unref()
  }

  /** @param {RememberedSession} session */
  remember (session) {
    this.#safely(() => this.store.put(session.uid, session))
  }

  /** @param {string} uid */
  forget (uid) {
    this.#safely(() => this.store.remove(uid))
  }

  stop () { clearInterval(this.timer) }

  async sweep () {
    if (this.sweeping) return
    this.sweeping = true
    await this.#safely(async () => {
      for (;;) {
        const now = Math.floor(Date.now() / 1_000) - ROUNDED
        const due = await this.store.due(now, BATCH_SIZE)
        const settled = await Promise.all(due.map((session) => this.#settle(session, now)))
        if (due.length < BATCH_SIZE || !settled.every(Boolean)) return
      }
    })
    this.sweeping = false
  }

  /** Whether the outcome of the session is known. @param {RememberedSession} session @param {number} now */
  async #settle (session, now) {
    let found
    try {
      found = await this.find(session.uid)
    } catch {
      this.log.limited('store', { level: 'warn', event: 'session_store_away', message: 'the session store does not answer: the lookup of expired sessions is repeated' })
      return false
    }
    if (found) await this.store.put(session.uid, { ...found, exp: found.exp > now ? found.exp : now + RETRY })
    else {
      if (Object.keys(session.sids).length) await this.publish(session)
      await this.store.remove(session.uid)
    }
    return true
  }

  /** @param {() => void | Promise<void>} work */
  async #safely (work) {
    try {
      await work()
    } catch (error) {
      this.log.limited('expiry', { level: 'error', event: 'expiry_store_failed', message: `the store of expiry fails, expired sessions may not be published: ${describeError(error)}` })
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
const LEASE = 60 // seconds until another process gets the same session, if this one died

/**
 * Sessions in Redis: a sorted set by their end, and a hash of their data.
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
      const found = await run(DUE, String(now), String(limit), String(now + LEASE))
      return found.filter((/** @type {unknown} */ each) => each !== null).map((/** @type {unknown} */ each) => JSON.parse(String(each)))
    },
    async remove (uid) { await run(REMOVE, uid) }
  }
}
