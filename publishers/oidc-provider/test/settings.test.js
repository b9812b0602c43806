/** Options: every mistake stops the start, all of them listed, each with its setting; what is right is read as meant. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Provider as Provider9 } from 'oidc-provider'
import { Provider as Provider8 } from 'oidc-provider-8'
import { parseAddress } from '../src/server_address.js'
import { publicKeys, PublishedKeys } from '../src/published_keys.js'
import { Logger } from '../src/logger.js'
import { readSettings } from '../src/settings.js'
import { api, folderOf, keptLog, provider, rig } from './rig.js'

const mistakesOf = (options) => {
  try { readSettings(options) } catch (error) { return error.mistakes }
  return []
}

test('all mistakes are listed, by their settings', (t) => {
  const folder = folderOf(t)
  writeFileSync(join(folder, 'file'), '')
  const found = mistakesOf({
    url: 'amqp://idp:pw@host', secret: 's', secretFile: '/nowhere', outbox: { folder: join(folder, 'file'), maxEvents: 0, maxAge: -1, size: 1 },
    tls: { caFile: '/nowhere', certificateFile: join(folder, 'file') }, limits: { signOut: '2s', drain: 1e12 }, keys: [{ kty: 'oct', k: 'x' }], keysFile: '/nowhere',
    metadata: 'yes', expiry: { store: {} }, exchange: '', log: 'console', verbose: true
  })
  const settings = found.map((each) => each.split(':')[0]).sort()
  assert.deepEqual(settings, [
    'exchange', 'expiry.store', 'keys', 'keys, keysFile', 'keysFile', 'limits.drain', 'limits.signOut', 'log', 'metadata', 'outbox.folder', 'outbox.maxAge', 'outbox.maxEvents',
    'outbox.size', 'secret, secretFile', 'secretFile', 'tls', 'tls.caFile', 'tls.certificateFile, tls.keyFile', 'url, secret, secretFile', 'verbose'
  ])
  assert.ok(!found.join().includes('pw'))
  assert.deepEqual(mistakesOf({}).map((each) => each.split(':')[0]), ['url', 'outbox.folder'])
  assert.deepEqual(mistakesOf({ url: 'amqp://u@h', outbox: { folder: 'relative' } }).length, 1)
  assert.throws(() => readSettings({ url: 5, outbox: [], tls: null }), /- url: must be a non-empty string.*- tls: must be an object|- tls/s)
})

test('the defaults are those of the contract', (t) => {
  const { outbox, limits, exchange, bulkExchange, metadata, expiry } = readSettings({ url: 'amqp://idp@host', outbox: { folder: folderOf(t) } })
  assert.deepEqual([outbox.maxEvents, outbox.maxBytes, outbox.maxAge], [100_000, 268_435_456, 30 * 86_400_000])
  assert.deepEqual([limits, exchange, bulkExchange, metadata, expiry], [{ signOut: 2_000, publish: 10_000, drain: 5_000 }, 'notifier.events', 'notifier.bulk', true, undefined])
})

test('addresses', () => {
  const read = (url) => { const { scheme, hosts, user, password, vhost, path } = parseAddress(url); return [scheme, hosts.map(({ host, port }) => `${host} ${port}`).join(), user, password, vhost, path] }
  assert.deepEqual(read('amqps://idp@host'), ['amqps', 'host 5671', 'idp', undefined, '/', ''])
  assert.deepEqual(read('amqp://i%40p:p%3Aw@one:1,[::1],three:3/a%2fb'), ['amqp', 'one 1,::1 5672,three 3', 'i@p', 'p:w', 'a/b', ''])
  assert.deepEqual(read('https://n.example.com/below/'), ['https', 'n.example.com 443', '', undefined, 'below/', '/below'])
  for (const wrong of ['amqp://host', 'ftp://u@h', 'amqp://u@h:0', 'amqp://u@h:99999', 'amqp://u@', 'https://u@h', 'https://a,b', 'https://a/v1/events', 'https://a/x/v1/events/', 'https://a/v1/events/okta', 'amqp://u@h/a/b', 'amqp://u@h/%', 'amqp://u@h?x=1', 'amqp://u@h,,i', 'h']) {
    assert.equal(typeof parseAddress(wrong), 'string', wrong)
  }
})

test('a private key, or a shared one, is never shown', () => {
  const secret = { d: '1', p: '1', q: '1', dp: '1', dq: '1', qi: '1', oth: [], priv: '1' }
  assert.deepEqual(publicKeys({ keys: [{ kty: 'RSA', n: 'n', e: 'e', kid: 'k', ...secret }] }), [{ kty: 'RSA', n: 'n', e: 'e', kid: 'k' }])
  for (const wrong of [{}, 'x', [1], [{ kty: 'oct' }], [{ kty: 'EC', kid: 'a' }, { kty: 'EC', kid: 'a' }]]) assert.throws(() => publicKeys(wrong))
})

test('keysFile is read again, and a file that is broken leaves the keys of before', (t) => {
  const file = join(folderOf(t), 'jwks.json')
  const log = keptLog()
  const shown = new PublishedKeys({ keys: [], keysFile: file }, new Logger(log))
  const kids = () => { shown.checkedAt = -Infinity; return shown.addTo([{ kid: 'own' }]).map(({ kid }) => kid) }
  writeFileSync(file, '{"keys": [{"kty": "EC", "kid": "one"}]}')
  assert.deepEqual(kids(), ['own', 'one'])
  writeFileSync(file, '{"keys": [{"kty": "EC", "kid": "one"}, {"kty": "EC", "kid": "two"}]}')
  assert.deepEqual(kids(), ['own', 'one', 'two'])
  writeFileSync(file, 'half')
  assert.deepEqual(kids(), ['own', 'one', 'two'])
  assert.equal(log.of('keys_not_read').length, 1)
})

for (const [version, library] of [['9.x', Provider9], ['8.x', Provider8]]) {
  test(`${version}: the JWK Set has the provider's keys and ours, none twice`, async (t) => {
    const there = await api(t)
    const keys = [{ kty: 'RSA', n: 'AQAB', e: 'AQAB', kid: 'notifier', alg: 'RS256', use: 'sig', d: 'secret' }, { kty: 'EC', crv: 'P-256', x: 'x', y: 'y', kid: 'own-ec' }]
    const { op, log } = await rig(t, { library, url: there.url, keys })
    const server = op.listen(0, '127.0.0.1')
    t.after(() => { server.close(); server.closeAllConnections() })
    await new Promise((resolve) => server.once('listening', resolve))
    const answer = await fetch(`http://127.0.0.1:${server.address().port}/jwks`)
    const shown = (await answer.json()).keys
    assert.match(answer.headers.get('content-type'), version === '9.x' ? /^application\/jwk-set\+json/ : /^application\/json/)
    assert.deepEqual(shown.map(({ kid }) => kid).sort(), ['notifier', 'own-ec', 'own-rsa'])
    assert.deepEqual(shown.find(({ kid }) => kid === 'notifier'), { kty: 'RSA', n: 'AQAB', e: 'AQAB', kid: 'notifier', alg: 'RS256', use: 'sig' })
    assert.notEqual(shown.find(({ kid }) => kid === 'own-ec').x, 'x')
    assert.equal(log.of('key_not_shown').length, 1)
  })
}

test('the library refuses a public key alone in its own jwks, which is why ours are added', () => {
  assert.throws(() => provider({ jwks: { keys: [{ kty: 'EC', crv: 'P-256', x: 'x', y: 'y' }] } }))
})
