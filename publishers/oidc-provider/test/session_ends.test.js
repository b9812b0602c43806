/** Each way of ending that the library has in code, at both versions: the published events, and the absence of errors. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Provider as Provider9 } from 'oidc-provider'
import { Provider as Provider8 } from 'oidc-provider-8'
import { publishLogouts } from '../src/index.js'
import { CLIENTS, api, client, documentIn, filesIn, folderOf, keptLog, pairwise, provider, rig, until } from './rig.js'

const VERSIONS = [['9.x', Provider9], ['8.x', Provider8]]

for (const [version, library] of VERSIONS) {
  test(`${version}: a session that is destroyed is one event, with each client as it knows the session`, async (t) => {
    const there = await api(t)
    const { op, session, logouts, folder } = await rig(t, { library, url: there.url })
    const ended = await session()
    await ended.destroy()
    await until(() => there.got.length)
    const [{ id, ended_at: at, clients, ...rest }] = there.events()
    assert.match(id, /^[\w-]{43}$/)
    assert.ok(Math.abs(Date.now() - Date.parse(at)) < 10_000)
    assert.deepEqual(rest, { iss: 'https://id.example.com', sub: 'alice', reason: 'terminated' })
    assert.deepEqual(clients, [
      { client_id: 'shop', sid: ended.sids.shop, backchannel_logout_uri: 'https://shop.example.com/out', backchannel_logout_session_required: true, id_token_signed_response_alg: 'RS256' },
      { client_id: 'mail', backchannel_logout_uri: 'https://mail.example.com/out', backchannel_logout_session_required: false, id_token_signed_response_alg: 'ES256' },
      { client_id: 'pair', sid: ended.sids.pair, sub: pairwise('pair.example.com', 'alice'), backchannel_logout_uri: 'https://pair.example.com/out', backchannel_logout_session_required: true, id_token_signed_response_alg: 'RS256' },
      { client_id: 'bare', backchannel_logout_uri: null }
    ])
    await until(() => logouts.published === 1 && logouts.waiting === 0)
    await until(() => filesIn(folder, '.json').length === 0)
    assert.equal(await op.Session.findByUid(ended.uid), undefined)
  })

  test(`${version}: the event is on the disk before the session is deleted, and contains the key to look it up`, async (t) => {
    const { op, folder, session } = await rig(t, { library })
    const ended = await session('alice', ['shop'])
    const { destroy } = op.Session.adapter
    op.Session.adapter.destroy = async function (id) {
      const { lane, session: key, event } = documentIn(folder, '.pending')
      assert.deepEqual([lane, key, event.clients.length], ['events', { uid: ended.uid }, 1])
      return destroy.call(this, id)
    }
    await ended.destroy()
    await until(() => filesIn(folder, 'events.json').length === 1)
    assert.deepEqual(filesIn(folder, '.pending'), [])
    assert.ok(!JSON.stringify(documentIn(folder, 'events.json')).includes(ended.jti), 'the value of the cookie')
  })

  test(`${version}: a single client is published as a separate event, and the library sends no POST`, async (t) => {
    const posts = await api(t)
    const there = await api(t)
    const { op } = await rig(t, { library, url: there.url, configuration: { clients: [client('shop', { backchannel_logout_uri: posts.url, backchannel_logout_session_required: true })] } })
    await (await op.Client.find('shop')).backchannelLogout('alice', 'sid-1')
    await until(() => there.got.length)
    assert.deepEqual(there.events()[0].clients.map(({ client_id: id, sid }) => [id, sid]), [['shop', 'sid-1']])
    assert.deepEqual(posts.got, [])
  })
}

test('the same ending has the same id, another ending another', async (t) => {
  const there = await api(t)
  const { session } = await rig(t, { url: there.url })
  const [one, other] = [await session('alice', ['shop']), await session('alice', ['shop'])]
  await Promise.all([one.destroy(), one.destroy()]) // a double click
  await other.destroy()
  await until(() => there.got.length === 3)
  const ids = there.events().map(({ id }) => id).sort()
  assert.equal(new Set(ids).size, 2)
})

test('a session without a user or without clients is not published', async (t) => {
  const { op, logouts, session } = await rig(t)
  await (await session('alice', [])).destroy()
  await new op.Session({}).destroy()
  assert.equal(logouts.written, 0)
})

test('a destroy that throws is thrown on, and its event taken back: the session lives', async (t) => {
  const { op, session, folder, log, logouts } = await rig(t)
  const ended = await session('alice', ['shop'])
  const { destroy } = op.Session.adapter
  op.Session.adapter.destroy = () => { throw new Error('the store is down') }
  await assert.rejects(ended.destroy(), /the store is down/)
  await until(() => log.of('left_over_dropped').length)
  assert.deepEqual(filesIn(folder, '.pending'), [])
  assert.equal(logouts.waiting, 0)
  op.Session.adapter.destroy = destroy
  await ended.destroy()
  await until(() => filesIn(folder, 'events.json').length === 1)
})

test('a destroy that throws although the session is gone is published', async (t) => {
  const { op, session, folder } = await rig(t)
  const ended = await session('alice', ['shop'])
  const { destroy } = op.Session.adapter
  op.Session.adapter.destroy = async function (id) {
    await destroy.call(this, id)
    throw new Error('the answer is lost')
  }
  await assert.rejects(ended.destroy(), /the answer is lost/)
  await until(() => filesIn(folder, 'events.json').length === 1)
})

test('a store that neither deletes nor answers leaves the event pending', async (t) => {
  const { op, session, folder, log } = await rig(t)
  const ended = await session('alice', ['shop'])
  op.Session.adapter.destroy = op.Session.adapter.findByUid = () => { throw new Error('away') }
  await assert.rejects(ended.destroy())
  await until(() => log.of('session_store_away').length)
  assert.equal(filesIn(folder, '.pending').length, 1)
})

test('a sign-out waits at most for the limit, and is published all the same', async (t) => {
  const there = await api(t)
  const { op, session, log } = await rig(t, { url: there.url, limits: { signOut: 100 } })
  const ended = await session('alice', ['shop'])
  const { find } = op.Client
  let answer
  op.Client.find = () => new Promise((resolve) => { answer = resolve })
  const began = performance.now()
  await ended.destroy()
  const took = performance.now() - began
  assert.ok(took >= 95 && took < 5_000, `${took} ms`)
  assert.equal(log.of('sign_out_not_held_up').length, 1)
  answer(await find.call(op.Client, 'shop'))
  await until(() => there.got.length)
})

test('a client whose store fails is named by its id, a deleted client is skipped', async (t) => {
  const there = await api(t)
  const { op, session, log } = await rig(t, { url: there.url })
  const ended = await session('alice', ['shop', 'gone'])
  const { find } = op.Client
  op.Client.find = function (id) {
    if (id === 'shop') throw new Error('the store is down')
    return find.call(this, id)
  }
  await ended.destroy()
  await until(() => there.got.length)
  assert.deepEqual(there.events()[0].clients, [{ client_id: 'shop' }, { client_id: 'gone', backchannel_logout_uri: null }])
  assert.equal(log.of('client_not_read').length, 1)
})

test('a pairwise client whose subject fails never gets the sub of others', async (t) => {
  const there = await api(t)
  const { session, log } = await rig(t, { url: there.url, configuration: { pairwiseIdentifier: () => { throw new Error('no salt') } } })
  const ended = await session('alice', ['shop', 'pair'])
  await ended.destroy()
  await until(() => there.got.length === 2)
  const [rest, alone] = there.events().sort(({ sub }) => sub ? -1 : 1)
  assert.deepEqual([rest.sub, rest.clients.length], ['alice', 1])
  assert.deepEqual([alone.sub, alone.sid, alone.clients[0].sub], [undefined, ended.sids.pair, undefined])
  assert.notEqual(rest.id, alone.id)
  assert.equal(log.of('pairwise_sub_failed').length, 1)
})

test('an algorithm that notifier never signs with is left out, and logged', async (t) => {
  const there = await api(t)
  const clients = [client('shop', { backchannel_logout_uri: 'https://shop.example.com/', id_token_signed_response_alg: 'HS256' })]
  const { session, log } = await rig(t, { url: there.url, configuration: { clients } })
  await (await session('alice', ['shop'])).destroy()
  await until(() => there.got.length)
  assert.equal('id_token_signed_response_alg' in there.events()[0].clients[0], false)
  assert.equal(log.of('algorithm_not_told').length, 1)
})

test('without metadata clients are named by their ids alone', async (t) => {
  const there = await api(t)
  const { session } = await rig(t, { url: there.url, metadata: false })
  const ended = await session()
  await ended.destroy()
  await until(() => there.got.length)
  assert.deepEqual(there.events()[0].clients, [
    { client_id: 'shop', sid: ended.sids.shop }, { client_id: 'mail' },
    { client_id: 'pair', sid: ended.sids.pair, sub: pairwise('pair.example.com', 'alice') }, { client_id: 'bare' }
  ])
})

test('a session of many clients is published in parts that notifier accepts, each with a separate id', async (t) => {
  const there = await api(t)
  const many = Array.from({ length: 250 }, (_, nth) => client(`c${nth}`, { backchannel_logout_uri: `https://c.example.com/${nth}/${'x'.repeat(1_500)}` }))
  const { session } = await rig(t, { url: there.url, configuration: { clients: many } })
  await (await session('alice', many.map(({ client_id: id }) => id))).destroy()
  await until(() => there.events().reduce((sum, { clients }) => sum + clients.length, 0) === 250)
  for (const { event } of there.got) {
    assert.ok(event.clients.length <= 100)
    assert.ok(JSON.stringify(event).length < 131_072)
  }
  assert.equal(new Set(there.events().map(({ id }) => id)).size, there.got.length)
})

test('sessions that end in bulk are published in the lane of mass logouts', async (t) => {
  const there = await api(t)
  const { session, logouts } = await rig(t, { url: there.url })
  const ended = [await session('alice', ['shop']), await session('bob', ['shop'])]
  await logouts.inBulk(() => Promise.all(ended.map((each) => each.destroy())))
  await until(() => there.got.length === 2)
  assert.deepEqual(there.got.map(({ path }) => path), ['/v1/events?lane=bulk', '/v1/events?lane=bulk'])
})

test('a log that throws harms nobody', async (t) => {
  const op = provider()
  const logouts = publishLogouts(op, { url: 'http://127.0.0.1:9', outbox: { folder: folderOf(t) }, log: () => { throw new Error('full') } })
  t.after(() => logouts.close())
  const ended = new op.Session({ accountId: 'alice', authorizations: { shop: { sid: 's' } } })
  await ended.save(60)
  await ended.destroy()
  await until(() => logouts.failures.unreachable > 0)
  assert.equal(logouts.waiting, 1)
})

test('without features.backchannelLogout, or twice, it does not start', async (t) => {
  const outbox = { folder: folderOf(t) }
  const options = { url: 'http://127.0.0.1:9', outbox, log: keptLog() }
  for (const [, library] of VERSIONS) {
    const op = provider({ clients: [CLIENTS[3]], features: {} }, library)
    assert.throws(() => publishLogouts(op, options), /features\.backchannelLogout\.enabled must be true/)
  }
  const op = provider()
  t.after(() => logouts.close())
  const logouts = publishLogouts(op, options)
  assert.throws(() => publishLogouts(op, options), /was already called for it/)
})

test('the front-channel URI of a client is published if the provider keeps it and notifier accepts it', async (t) => {
  const there = await api(t)
  const good = ['https://shop.example.com/out?a=1', 'http://localhost:64999', 'https://a-b.example.com:8443/%20[x]', `https://shop.example.com/${'x'.repeat(4071)}`]
  const bad = ['', 5, 'javascript:alert(1)', 'https://shop.example.com/#a', 'https://u@shop.example.com/', 'https://shop..example.com/', 'https://-a.example.com/',
    'https://1.2.3.4.5/', 'https://shop.example.com:0/', 'https://shop.example.com:65536/', 'https://shop.example.com/a b', 'https://shop.example.com/b\u00fcro',
    'https://shop.example.com/a\\b', 'https://shop.example.com/\n', `https://${'a'.repeat(64)}/`, `https://${'a.'.repeat(127)}aa/`, `https://shop.example.com/${'x'.repeat(4072)}`]
  const clients = [...good, ...bad].map((uri, nth) => client(`c${nth}`, { frontchannel_logout_uri: uri, frontchannel_logout_session_required: nth === 0 }))
  const properties = ['frontchannel_logout_uri', 'frontchannel_logout_session_required']
  const { session } = await rig(t, { url: there.url, configuration: { clients, extraClientMetadata: { properties } } })
  await (await session('alice', clients.map(({ client_id: id }) => id))).destroy()
  await until(() => there.got.length)
  const listed = there.events()[0].clients
  assert.deepEqual(listed.map((entry) => entry.frontchannel_logout_uri), [...good, ...bad.map(() => undefined)])
  assert.deepEqual(listed.map((entry) => entry.frontchannel_logout_session_required), [true, false, false, false, ...bad.map(() => undefined)])
})
