/** notifier's API: a 202 with the event's id confirms, and whatever else answers, no event is forgotten or out of order. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { api, filesIn, folderOf, rig, until } from './rig.js'

/** End sessions of these users, one after the other. */
async function end (session, ...accounts) {
  for (const account of accounts) await (await session(account, ['shop'])).destroy()
}

test('events come in the order of their endings, with the token', async (t) => {
  const there = await api(t)
  const { session, logouts } = await rig(t, { url: `${there.url}/below/`, secret: 'token' })
  await end(session, ...'abcdefghij')
  await until(() => logouts.published === 10)
  assert.equal(there.events().map(({ sub }) => sub).join(''), 'abcdefghij')
  assert.deepEqual([there.got[0].path, there.got[0].headers.authorization, there.got[0].headers['content-type']], ['/below/v1/events', 'Bearer token', 'application/json'])
})

const PAGE = [{ 'content-type': 'text/html', server: 'proxy' }, '<html>Blocked</html>']

describe('any other answer does not confirm: the event is kept, and published again with its id', { concurrency: true }, () => {
  for (const [answer, reason] of [
    [[401], 'denied'], [[403], 'denied'], [[404], 'rejected'], [[429], 'rejected'], [[503], 'rejected'],
    [[408, ...PAGE], 'rejected'], [[500, ...PAGE], 'rejected'],
    [[202, {}, '{}'], 'intercepted'], [[202, ...PAGE], 'intercepted'], [[200, ...PAGE], 'intercepted'], [[302, { location: '/elsewhere' }, ''], 'intercepted'],
    [[400, ...PAGE], 'intercepted'], [[413, {}, '{"type": "about:blank"}'], 'intercepted'], [[422, { 'content-type': 'application/json' }], 'intercepted']
  ]) {
    test(`${answer} is ${reason}`, async (t) => {
      const ids = []
      const there = await api(t, ({ id }) => ids.push(id) < 3 ? answer : 202)
      const { session, logouts, log } = await rig(t, { url: there.url })
      await end(session, 'alice')
      await until(() => logouts.published === 1)
      assert.deepEqual(ids, Array(3).fill(there.events()[0].id))
      assert.equal(logouts.failures[reason], 2)
      assert.equal(log.of('publish_failed').length, 1, 'once a minute')
      assert.match(log.of('publish_failed')[0].message, RegExp(String(answer[0])))
      assert.equal(log.of('publish_recovered').length, 1)
    })
  }
})

test('an event that is always intercepted delays no other, and is published when it is permitted', async (t) => {
  let blocked = true
  const there = await api(t, ({ sub }) => blocked && sub === 'bad' ? [403, ...PAGE] : 202)
  const { session, logouts, log } = await rig(t, { url: there.url, limits: { drain: 1 } })
  await end(session, 'bad', 'one', 'two')
  await until(() => logouts.published === 2)
  assert.deepEqual([logouts.failures.intercepted, logouts.waiting, logouts.refused], [3, 1, 0])
  const [deferred] = log.of('event_deferred')
  assert.match(deferred.message, /403 \(Server: proxy\): <html>Blocked<\/html>/)
  blocked = false
  await until(() => logouts.published === 3)
  assert.equal(there.events().at(-1).id, deferred.id)
})

test('a page that repeats the request is not quoted', async (t) => {
  const there = await api(t, (event, { headers }) => [403, { 'content-type': 'text/html' }, `<p>${'x'.repeat(400)} ${event.id.length > 9 ? headers.authorization : ''}`])
  const { session, logouts, log } = await rig(t, { url: there.url, secret: 'to/ken+1', limits: { drain: 1 } })
  await end(session, 'alice')
  await until(() => logouts.failures.intercepted)
  assert.match(log.of('publish_failed')[0].message, /a page that repeats the request/)
  assert.ok(!JSON.stringify(log.records).includes('to/ken+1'))
})

test('a body that stalls is judged by its status', async (t) => {
  const server = (await import('node:http')).createServer((_request, response) => { response.writeHead(403, { 'content-type': 'text/html' }).write('<p>Blo') })
  server.listen(0, '127.0.0.1')
  t.after(() => { server.close(); server.closeAllConnections() })
  await until(() => server.address())
  const { session, logouts } = await rig(t, { url: `http://127.0.0.1:${server.address().port}`, limits: { publish: 200, drain: 1 } })
  await end(session, 'alice')
  await until(() => logouts.failures.intercepted)
  assert.equal(logouts.failures.timed_out, 0)
})

for (const status of [400, 413, 422]) {
  test(`${status} sets the event aside, and holds up no other`, async (t) => {
    const there = await api(t, ({ sub }) => sub === 'bad' ? status : 202)
    const { session, logouts, log, folder } = await rig(t, { url: there.url })
    await end(session, 'one', 'bad', 'two')
    await until(() => logouts.published === 2 && logouts.refused === 1)
    assert.deepEqual(there.events().map(({ sub }) => sub), ['one', 'two'])
    const [file] = filesIn(folder, '.refused')
    const { event } = JSON.parse(readFileSync(join(folder, file), 'utf8'))
    const [record] = log.of('event_refused')
    assert.deepEqual([record.level, record.id, record.file], ['error', event.id, file])
  })
}

test('Retry-After is kept', async (t) => {
  const times = []
  const there = await api(t, () => times.push(performance.now()) === 1 ? [503, { 'retry-after': '1' }] : 202)
  const { session, logouts } = await rig(t, { url: there.url })
  await end(session, 'alice')
  await until(() => logouts.published === 1)
  assert.ok(times[1] - times[0] >= 990, `${times[1] - times[0]} ms`)
})

test('an API that accepts connections and does not answer delays no sign-out', async (t) => {
  const server = net.createServer(() => {}).listen(0, '127.0.0.1')
  t.after(() => server.close())
  await until(() => server.address())
  const { session, logouts } = await rig(t, { url: `http://127.0.0.1:${server.address().port}`, limits: { publish: 100, drain: 1, signOut: 60_000 } })
  const began = performance.now()
  await end(session, 'alice')
  assert.ok(performance.now() - began < 10_000)
  await until(() => logouts.failures.timed_out >= 2)
  assert.equal(logouts.waiting, 1)
  assert.ok(logouts.oldest > 0)
})

test('a bulk lane that cannot be published holds up no other event', async (t) => {
  const there = await api(t, (_event, { url }) => url.includes('bulk') ? 503 : 202)
  const { session, logouts } = await rig(t, { url: there.url })
  await logouts.inBulk(() => end(session, 'mass'))
  await end(session, 'alice', 'bob')
  await until(() => logouts.published === 2)
  assert.deepEqual([there.events().map(({ sub }) => sub), logouts.waiting], [['alice', 'bob'], 1])
})

test('the secret file is read again at each connection', async (t) => {
  const file = join(folderOf(t), 'token')
  writeFileSync(file, 'old\n')
  const there = await api(t, (_event, { headers }) => headers.authorization === 'Bearer new' ? 202 : 401)
  const { session, logouts, log } = await rig(t, { url: there.url, secretFile: file })
  await end(session, 'alice')
  await until(() => logouts.failures.denied)
  writeFileSync(file, 'new\n')
  await until(() => logouts.published === 1)
  assert.ok(!JSON.stringify(log.records).includes('old'))
})

test('an idle connection that the API closed does not count as a failure', async (t) => {
  const there = await api(t)
  const { session, logouts } = await rig(t, { url: there.url })
  for (let nth = 1; nth <= 5; nth += 1) {
    await end(session, 'alice')
    await until(() => logouts.published === nth)
    there.server.closeIdleConnections() // at an odd turn the next event is on its way before that is known here
    if (nth % 2) await new Promise((resolve) => setTimeout(resolve, 20))
  }
  assert.deepEqual(Object.values(logouts.failures), [0, 0, 0, 0, 0, 0, 0])
})

test('https: a certificate of another authority, or of another name, gets no event', async (t) => {
  const folder = folderOf(t)
  const made = (name, host) => {
    const [key, cert] = [join(folder, `${name}.key`), join(folder, `${name}.pem`)]
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', cert, '-days', '1', '-subj', `/CN=${host}`, '-addext', `subjectAltName=IP:${host}`], { stdio: 'ignore' })
    return { key: readFileSync(key), cert: readFileSync(cert), file: cert }
  }
  const [right, wrong] = [made('right', '127.0.0.1'), made('wrong', '127.0.0.2')]
  const there = await api(t, undefined, right)
  const misnamed = await api(t, undefined, wrong)
  const trusted = await rig(t, { url: there.url, tls: { caFile: right.file } })
  const stranger = await rig(t, { url: there.url })
  const other = await rig(t, { url: misnamed.url, tls: { caFile: wrong.file } })
  for (const { session } of [trusted, stranger, other]) await end(session, 'alice')
  await until(() => trusted.logouts.published && stranger.logouts.failures.unreachable && other.logouts.failures.unreachable)
  assert.deepEqual([there.got.length, misnamed.got.length], [1, 0])
})
