/**
 * Publishes expired sessions, for which the library has no hook: each session is remembered at every save, and looked up
 * after its end.
 */
import { kindOf } from './failure.js'

/** @typedef {import('../index.d.ts').ExpiryStore} ExpiryStore */
/** @typedef {import('../index.d.ts').RememberedSession} RememberedSession */

const AT_A_TIME = 100
const AGAIN = 15 // seconds; the library lets sessions live on for its `clockTolerance`
const ROUNDED = 1 // second; `exp` is whole, and a store that deletes by itself does so up to this much later

export class Expiry {
  /**
   * @param {ExpiryStore} store @param {number} every
   * @param {(uid: string) => Promise<RememberedSession | undefined>} find The current session; throws if the store fails.
   * @param {(session: RememberedSession) => Promise<void>} tell
   * @param {import('./log.js').Logger} log
   */
  constructor (store, every, find, tell, log) {
    this.store = store
    this.find = find
    this.tell = tell
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
        const due = await this.store.due(now, AT_A_TIME)
        const settled = await Promise.all(due.map((session) => this.#settle(session, now)))
        if (due.length < AT_A_TIME || !settled.every(Boolean)) return
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
      this.log.again('store', { level: 'warn', event: 'session_store_away', message: 'the session store does not answer: the lookup of expired sessions is repeated' })
      return false
    }
    if (found) await this.store.put(session.uid, { ...found, exp: found.exp > now ? found.exp : now + AGAIN })
    else {
      if (Object.keys(session.sids).length) await this.tell(session)
      await this.store.remove(session.uid)
    }
    return true
  }

  /** @param {() => void | Promise<void>} work */
  async #safely (work) {
    try {
      await work()
    } catch (error) {
      this.log.again('expiry', { level: 'error', event: 'expiry_store_failed', message: `the store of expiry fails, expired sessions may not be published: ${kindOf(error)}` })
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
const LEASE = 60 // seconds in which no other process gets the same; after them it comes again, if this one died

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
