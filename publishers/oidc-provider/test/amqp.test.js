/** The broker: a socket that never answers, and a real one, where AMQP_URL names it. */
import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { unlinkSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import amqp from 'amqplib'
import { folderOf, rig, until } from './rig.js'

const URL_OF_BROKER = process.env.AMQP_URL
const real = { skip: URL_OF_BROKER ? false : 'AMQP_URL names no broker' }
const end = async (session, account = 'alice') => (await session(account, ['shop'])).destroy()

/** Exchanges of the test's own, each with a queue unless disabled. */
async function exchanges (t, { queues = ['events', 'bulk'] } = {}) {
  const connection = await amqp.connect(URL_OF_BROKER)
  const channel = await connection.createChannel()
  const names = { events: `test-${randomUUID()}`, bulk: `test-${randomUUID()}` }
  const got = []
  for (const [lane, name] of Object.entries(names)) {
    await channel.assertExchange(name, 'topic', { autoDelete: false })
    if (!queues.includes(lane)) continue
    const { queue } = await channel.assertQueue('', { exclusive: true })
    await channel.bindQueue(queue, name, '#')
    await channel.consume(queue, (message) => got.push({ lane, ...message, event: JSON.parse(message.content.toString()) }), { noAck: true })
  }
  t.after(async () => {
    for (const name of Object.values(names)) await channel.deleteExchange(name)
    await connection.close()
  })
  return { got, connection, channel, options: { url: URL_OF_BROKER, exchange: names.events, bulkExchange: names.bulk } }
}

test('a broker that accepts connections and does not answer: no sign-out waits, and publishing is retried', async (t) => {
  const sockets = []
  const server = net.createServer((socket) => sockets.push(socket.on('error', () => {}).resume())).listen(0, '127.0.0.1')
  t.after(() => { server.close(); for (const socket of sockets) socket.destroy() })
  await once(server, 'listening')
  const { session, logouts, log } = await rig(t, { url: `amqp://idp:pw@127.0.0.1:${server.address().port}`, limits: { publish: 150, signOut: 60_000 } })
  for (let nth = 0; nth < 20; nth += 1) {
    const began = performance.now()
    await end(session)
    assert.ok(performance.now() - began < 10_000)
  }
  await until(() => logouts.failures.timed_out >= 3)
  assert.equal(logouts.waiting, 20)
  assert.equal(log.of('publish_failed').length, 1)
  await until(() => sockets.filter((socket) => socket.destroyed || socket.readableEnded).length >= 2, 'dropped')
})

test('several hosts are tried in turns', async (t) => {
  const called = []
  const servers = ['a', 'b'].map((name) => net.createServer((socket) => { called.push(name); socket.destroy() }).listen(0, '127.0.0.1'))
  t.after(() => { for (const server of servers) server.close() })
  await Promise.all(servers.map((server) => once(server, 'listening')))
  const { session } = await rig(t, { url: `amqp://idp@${servers.map((server) => `127.0.0.1:${server.address().port}`).join()}` })
  await end(session)
  await until(() => called.includes('a') && called.includes('b'))
})

test('an event is persistent, in the name of its user, with its id, on its lane', real, async (t) => {
  const { got, options } = await exchanges(t)
  const { session, logouts } = await rig(t, options)
  await end(session)
  await logouts.inBulk(() => end(session, 'bob'))
  await until(() => got.length === 2 && logouts.published === 2)
  got.sort((one) => one.lane === 'events' ? -1 : 1)
  for (const { properties, fields, event } of got) {
    const { deliveryMode, messageId, userId, contentType } = properties
    assert.deepEqual([deliveryMode, messageId, userId, contentType, fields.routingKey], [2, event.id, decodeURIComponent(new URL(URL_OF_BROKER).username), 'application/json', 'session.ended'])
  }
  assert.deepEqual(got.map(({ lane, event }) => [lane, event.sub]), [['events', 'alice'], ['bulk', 'bob']])
})

test('many events come in order', real, async (t) => {
  const { got, options } = await exchanges(t)
  const { session, logouts } = await rig(t, options)
  for (let nth = 0; nth < 300; nth += 1) await end(session, `u${nth}`)
  await until(() => logouts.published === 300 && got.length === 300)
  assert.deepEqual(got.map(({ event }) => event.sub), Array.from({ length: 300 }, (_, nth) => `u${nth}`))
})

test('an event without a queue is kept, logged with the remedy, and published once there is a queue', real, async (t) => {
  const { channel, options } = await exchanges(t, { queues: [] })
  const { session, logouts, log } = await rig(t, options)
  await end(session)
  await until(() => logouts.failures.unroutable)
  assert.equal(logouts.published, 0)
  assert.match(log.of('publish_failed')[0].message, /no queue is bound to the exchange .*start notifier once/)
  const { queue } = await channel.assertQueue('', { exclusive: true })
  await channel.bindQueue(queue, options.exchange, '#')
  await until(() => logouts.published === 1)
})

test('an exchange that is missing, in one lane, holds up no other', real, async (t) => {
  const { got, options } = await exchanges(t)
  const { session, logouts, log } = await rig(t, { ...options, bulkExchange: 'there-is-none' })
  await logouts.inBulk(() => end(session, 'mass'))
  await until(() => logouts.failures.unroutable)
  await end(session)
  await until(() => got.length === 1)
  assert.match(log.of('publish_failed')[0].message, /there is no exchange there-is-none/)
  assert.equal(log.of('publish_failed')[0].lane, 'bulk')
})

test('a nack stays', real, async (t) => {
  const { channel, options } = await exchanges(t, { queues: ['bulk'] })
  const { queue } = await channel.assertQueue('', { exclusive: true, maxLength: 1, arguments: { 'x-overflow': 'reject-publish' } })
  await channel.bindQueue(queue, options.exchange, '#')
  const { session, logouts } = await rig(t, options)
  await end(session)
  await until(() => logouts.published === 1)
  await end(session)
  await until(() => logouts.failures.rejected)
  assert.equal(logouts.waiting, 1)
  await channel.purgeQueue(queue)
  await until(() => logouts.published === 2)
})

test('a wrong password is reported but never shown, and the file is read again', real, async (t) => {
  const { options } = await exchanges(t)
  const { username, password, host } = new URL(URL_OF_BROKER)
  const file = join(folderOf(t), 'password')
  writeFileSync(file, 'not-the-password')
  const { session, logouts, log } = await rig(t, { ...options, url: `amqp://${username}@${host}`, secretFile: file })
  await end(session)
  await until(() => logouts.failures.denied)
  writeFileSync(file, `${decodeURIComponent(password)}\n`)
  await until(() => logouts.published === 1)
  assert.ok(!JSON.stringify(log.records).includes('not-the-password'))
})

test('a connection that is cut while nothing is published does not count as a failure', real, async (t) => {
  const { options } = await exchanges(t)
  const { hostname, port } = new URL(URL_OF_BROKER)
  const sockets = []
  const proxy = net.createServer((socket) => {
    const onward = net.connect(Number(port), hostname)
    sockets.push(socket.on('error', () => {}))
    socket.pipe(onward.on('error', () => {})).pipe(socket)
    socket.on('close', () => onward.destroy())
  }).listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  t.after(() => { proxy.close(); for (const socket of sockets) socket.destroy() })
  const { session, logouts } = await rig(t, { ...options, url: URL_OF_BROKER.replace(`${hostname}:${port}`, `127.0.0.1:${proxy.address().port}`) })
  await end(session)
  await until(() => logouts.published === 1)
  sockets[0].resetAndDestroy()
  await until(() => sockets[0].destroyed)
  await new Promise((resolve) => setTimeout(resolve, 50))
  await end(session)
  await until(() => logouts.published === 2)
  assert.deepEqual(Object.values(logouts.failures), [0, 0, 0, 0, 0, 0, 0])
})

test('a file of tls that cannot be read is named: the broker is not called unreachable', async (t) => {
  const caFile = join(folderOf(t), 'ca.pem')
  writeFileSync(caFile, 'no certificate')
  const server = net.createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  t.after(() => server.close())
  await once(server, 'listening')
  const { session, log } = await rig(t, { url: `amqps://idp:pw@127.0.0.1:${server.address().port}`, tls: { caFile } })
  unlinkSync(caFile)
  await end(session)
  await until(() => log.of('publish_failed').length)
  assert.match(log.of('publish_failed')[0].message, /^tls\.caFile cannot be read \(ENOENT\)/)
})
