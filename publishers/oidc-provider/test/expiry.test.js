/** Expired sessions are published once, also after a restart; in memory, and in Redis. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { redisExpiry } from '../src/index.js'
import { ExpiredSessionPublisher } from '../src/expiry.js'
import { Logger } from '../src/logger.js'
import { JournaledExpiryStore } from '../src/journaled_expiry_store.js'
import { OutboxFolder } from '../src/outbox_folder.js'
import { api, folderOf, keptLog, rig, until } from './rig.js'

const REDIS = process.env.REDIS_URL
const real = { skip: REDIS ? false : 'REDIS_URL names no Redis' }
const remembered = (uid, exp, more = {}) => ({ uid, exp, accountId: 'alice', sids: { shop: `sid-${uid}` }, ...more })

test('an expired session is published in bulk, a signed-out session is not published again', async (t) => {
  const there = await api(t)
  const { session, logouts } = await rig(t, { url: there.url, expiry: { every: 50 } })
  const out = await session('out', ['shop'], 1)
  await out.destroy()
  const lapsed = await session('lapsed', ['shop'], 1)
  await until(() => there.got.length === 1)
  lapsed.exp = 1 // its store forgets it, as one with a time to live does
  await lapsed.adapter.destroy(lapsed.jti)
  await until(() => there.got.length === 2)
  const [, { event, path }] = there.got
  assert.deepEqual([event.sub, event.reason, path, event.clients.length], ['lapsed', 'session_expiration', '/v1/events?lane=bulk', 1])
  assert.equal(logouts.written, 2)
})

test('a session that lives on is looked up again at its new end', async () => {
  const log = new Logger(keptLog())
  const memory = new JournaledExpiryStore(10, () => undefined, log)
  const published = []
  const living = new Map([['a', remembered('a', 9e9)]])
  const expiry = new ExpiredSessionPublisher(memory, 1e6, async (uid) => living.get(uid), async (session) => { published.push(session.uid) }, log)
  expiry.stop()
  for (const uid of ['a', 'b']) expiry.remember(remembered(uid, 1))
  await expiry.sweep()
  assert.deepEqual([published, memory.sessions.get('a')?.exp, memory.sessions.size], [['b'], 9e9, 1])
})

test('a store of sessions that does not answer is asked again', async () => {
  const kept = keptLog()
  const log = new Logger(kept)
  const memory = new JournaledExpiryStore(10, () => undefined, log)
  let away = true
  const published = []
  const expiry = new ExpiredSessionPublisher(memory, 1e6, async () => { if (away) throw new Error('away') }, async (session) => { published.push(session.uid) }, log)
  expiry.stop()
  expiry.remember(remembered('a', 1))
  await expiry.sweep()
  assert.deepEqual([published, kept.of('session_store_away').length], [[], 1])
  away = false
  await expiry.sweep()
  assert.deepEqual(published, ['a'])
})

test('memory is bounded, and a full memory is logged', () => {
  const kept = keptLog()
  const memory = new JournaledExpiryStore(2, () => undefined, new Logger(kept))
  for (const uid of ['a', 'b', 'c']) memory.put(uid, remembered(uid, 1))
  memory.put('b', remembered('b', 2))
  clearTimeout(memory.timer)
  assert.deepEqual([[...memory.sessions.keys()], memory.sessions.get('b').exp, kept.of('session_not_remembered').length], [['a', 'b'], 2, 1])
})

test('sessions that a killed process remembered are published by the next, without the removed ones', async (t) => {
  const folder = folderOf(t)
  const dead = await OutboxFolder.claim(folder, 'https://id.example.com')
  const memory = new JournaledExpiryStore(10, () => dead.path, new Logger(keptLog()))
  for (const uid of ['a', 'b', 'c']) memory.put(uid, remembered(uid, 1))
  await memory.flush()
  memory.remove('b')
  memory.put('c', remembered('c', 2, { sids: { shop: 'another' } }))
  await memory.flush()
  const [journal] = readdirSync(dead.path).filter((name) => name === 'sessions.jsonl')
  assert.equal(readFileSync(join(dead.path, journal), 'utf8').trim().split('\n').length, 5)
  await dead.release()
  const there = await api(t)
  await rig(t, { folder, url: there.url, expiry: { every: 50, bulk: false } })
  await until(() => there.got.length === 2)
  assert.deepEqual(there.events().map(({ clients }) => clients[0].sid).sort(), ['another', 'sid-a'])
  assert.deepEqual(there.got.map(({ path }) => path), ['/v1/events', '/v1/events'])
})

test('the journal does not grow forever', async (t) => {
  const folder = folderOf(t)
  const memory = new JournaledExpiryStore(10, () => folder, new Logger(keptLog()))
  for (let nth = 0; nth < 5_000; nth += 1) {
    memory.put('a', remembered('a', nth))
    if (nth % 100 === 0) await memory.flush()
  }
  await memory.flush()
  assert.ok(readFileSync(join(folder, 'sessions.jsonl'), 'utf8').split('\n').length < 1_300)
})

for (const [name, connect] of [
  ['ioredis', async () => { const redis = new Redis(REDIS); return [redis, () => redis.disconnect()] }],
  ['node-redis', async () => { const redis = await createClient({ url: REDIS }).connect(); return [redis, () => redis.destroy()] }]
]) {
  test(`${name}: sessions are due in the order of their ends, once for all processes, until they are removed`, real, async (t) => {
    const [redis, leave] = await connect()
    t.after(leave)
    const key = `{${randomUUID()}}`
    const [one, other] = [redisExpiry(redis, { key }), redisExpiry(redis, { key })]
    assert.deepEqual(await one.due(100, 10), [])
    for (const [uid, exp] of [['late', 300], ['b', 20], ['a', 10], ['again', 5]]) await one.put(uid, remembered(uid, exp))
    await other.put('again', remembered('again', 400))
    assert.deepEqual((await one.due(100, 1)).map(({ uid }) => uid), ['a'])
    assert.deepEqual(await other.due(100, 10), [remembered('b', 20)])
    assert.deepEqual(await one.due(100, 10), [])
    assert.deepEqual((await other.due(160, 10)).map(({ uid }) => uid), ['a', 'b'], 'after a minute, should that process have died')
    for (const uid of ['a', 'b', 'late', 'again']) await other.remove(uid)
    assert.deepEqual(await one.due(1e9, 10), [])
  })
}

test('two processes that share a Redis publish an expired session once', real, async (t) => {
  const redis = new Redis(REDIS)
  t.after(() => redis.disconnect())
  const key = `{${randomUUID()}}`
  const there = await api(t)
  const rigs = await Promise.all([1, 2].map(() => rig(t, { url: there.url, expiry: { every: 20, store: redisExpiry(redis, { key }) } })))
  const store = redisExpiry(redis, { key })
  for (let nth = 0; nth < 20; nth += 1) await store.put(`s${nth}`, remembered(`s${nth}`, 1))
  await until(() => rigs.reduce((sum, { logouts }) => sum + logouts.published, 0) === 20)
  assert.equal(new Set(there.events().map(({ id }) => id)).size, 20)
})

test('a failing Redis does not affect a sign-in, and is logged', async (t) => {
  const store = redisExpiry({ call: async () => { throw Object.assign(new TypeError('redis://user:hush@store is away'), { code: 'EAWAY' }) } })
  const { session, log } = await rig(t, { expiry: { store, every: 20 } })
  await (await session('alice', ['shop'])).destroy()
  await until(() => log.of('expiry_store_failed').length)
  assert.match(log.of('expiry_store_failed')[0].message, /: TypeError EAWAY$/)
})
