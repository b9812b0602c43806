/** Sub-folders of the outbox: each process has its own, and takes over those of the dead, once, and never a living one's. */
import assert from 'node:assert/strict'
import { execFileSync, fork, spawn } from 'node:child_process'
import { chmodSync, chownSync, existsSync, lutimesSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, symlinkSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { Logger } from '../src/logger.js'
import { Outbox } from '../src/outbox.js'
import { DeadProcessTakeover, OutboxFolder, readOwnFile } from '../src/outbox_folder.js'
import { PendingEventResolver } from '../src/pending_event_resolver.js'
import { NOWHERE, api, filesIn, folderOf, keptLog, rig, until } from './rig.js'

const ISSUER = 'https://id.example.com'
const PROGRAM = new URL('process.js', import.meta.url).pathname

/** A process with an outbox. */
function processOf (t, options) {
  const child = spawn(process.execPath, [PROGRAM, JSON.stringify({ url: NOWHERE, ...options })], { stdio: ['pipe', 'pipe', 'inherit'] })
  const sent = []
  createInterface(child.stdout).on('line', (line) => sent.push(JSON.parse(line)))
  const gone = new Promise((resolve) => child.once('exit', resolve))
  t.after(() => child.kill('SIGKILL'))
  return {
    child,
    sent,
    gone,
    async ask (...what) {
      const before = sent.filter(({ done }) => done).length
      child.stdin.write(JSON.stringify(what) + '\n')
      await until(() => sent.filter(({ done }) => done).length > before, what[0])
    },
    send (...what) { child.stdin.write(JSON.stringify(what) + '\n') },
    async kill () { child.kill('SIGKILL'); await gone }
  }
}

async function placeOf (t, folder) {
  const place = await OutboxFolder.claim(folder, ISSUER)
  t.after(() => place.release())
  return place
}

const never = (name, error) => assert.fail(`${name}: ${error}`)

test('a file that is missing does not make the folder lost; a folder that is missing or replaced does', async (t) => {
  for (const replaced of [false, true]) {
    const place = await placeOf(t, folderOf(t))
    await assert.rejects(place.rename('1-events.pending', '1-events.json'), { code: 'ENOENT' })
    assert.equal(place.lost, false)
    renameSync(place.path, `${place.path}-moved`)
    if (replaced) mkdirSync(place.path)
    await assert.rejects(place.rename('1-events.pending', '1-events.json'), { code: 'ENOENT' })
    assert.equal(place.lost, true)
  }
})

test('a process that was killed with a full outbox: its events come at the next start, in their order', async (t) => {
  const folder = folderOf(t)
  const dead = processOf(t, { folder })
  await dead.ask('end', ...'abcdefgh')
  await dead.kill()
  const there = await api(t)
  const { logouts } = await rig(t, { folder, url: there.url })
  await until(() => logouts.published === 8)
  assert.equal(there.events().map(({ sub }) => sub).join(''), 'abcdefgh')
  await until(() => readdirSync(folder).length === 1)
})

test('killed before its session is deleted, and after: published if the session is gone from the store', async (t) => {
  const there = await api(t)
  await Promise.all(['before', 'after'].map(async (when) => {
    const folder = folderOf(t)
    const dead = processOf(t, { folder })
    dead.send('die', when)
    await dead.gone
    assert.equal(filesIn(folder, '.pending').length, 1)
    const { log } = await rig(t, { folder, url: there.url }) // its store in memory has neither
    await until(() => log.of('left_over_published').length === 1)
  }))
  await until(() => there.got.length === 2)
})

test('a left event whose session lives is dropped, once the store has had time to delete it; where the store does not answer it is asked again', async (t) => {
  const folder = folderOf(t)
  const dead = await OutboxFolder.claim(folder)
  for (const uid of ['alive', 'going', 'gone']) await dead.write(`00000000000000${uid.length}-${uid}-events`, '.pending', JSON.stringify({ lane: 'events', session: { uid }, event: { id: uid } }))
  await dead.write('000000000000009-broken-events', '.pending', 'half')
  await dead.release()
  const log = keptLog()
  const outbox = new Outbox({ outbox: { folder, maxEvents: 9, maxBytes: 9_999, maxAge: 9 }, limits: { signOut: 60_000 } }, new Logger(log), () => {})
  let away = true
  let asked = 0
  const resolver = new PendingEventResolver(outbox, async (uid) => {
    if (away) throw new Error('away')
    return uid === 'alive' || (uid === 'going' && ++asked === 1) ? {} : undefined
  }, new Logger(log))
  t.after(() => { resolver.stop(); return outbox.close() })
  await outbox.takeOver()
  await resolver.resolvePending()
  assert.deepEqual([filesIn(folder, '.pending').length, log.of('session_store_away').length], [4, 1])
  away = false
  await resolver.resolvePending()
  assert.deepEqual(filesIn(folder, '.pending'), ['000000000000005-alive-events.pending', '000000000000005-going-events.pending'])
  for (const entry of outbox.pending) if (entry.stem.includes('alive')) entry.aliveSince -= 5_000
  await resolver.resolvePending()
  assert.deepEqual([filesIn(folder, '.pending'), filesIn(folder, '-events.json'), filesIn(folder, '.refused')], [[], ['000000000000004-gone-events.json', '000000000000005-going-events.json'], ['000000000000009-broken-events.refused']])
  assert.deepEqual([log.of('left_over_dropped').map(({ id }) => id), log.of('left_over_published').map(({ id }) => id)], [['alive'], ['gone', 'going']])
})

test('a slow answer does not drop an event: it holds for the start of the lookup', async (t) => {
  const folder = folderOf(t)
  const dead = await OutboxFolder.claim(folder)
  await dead.write('000000000000001-going-events', '.pending', JSON.stringify({ lane: 'events', session: { uid: 'going' }, event: { id: 'going' } }))
  await dead.release()
  const outbox = new Outbox({ outbox: { folder, maxEvents: 9, maxBytes: 9_999, maxAge: 9 }, limits: { signOut: 60_000 } }, new Logger(keptLog()), () => {})
  let now = 1_000
  t.mock.method(performance, 'now', () => now)
  const resolver = new PendingEventResolver(outbox, async () => { now += 6_000; return {} }, new Logger(keptLog()))
  t.after(() => { resolver.stop(); return outbox.close() })
  await outbox.takeOver()
  for (const [pause, left] of [[0, 1], [1_000, 1], [5_000, 0]]) {
    now += pause
    await resolver.resolvePending()
    assert.equal(filesIn(folder, '.pending').length, left)
  }
})

test('a living process keeps its folder, also while it is stopped, and whatever its pid', async (t) => {
  const folder = folderOf(t)
  const living = processOf(t, { folder })
  await living.ask('end', 'alice')
  living.child.kill('SIGSTOP')
  const place = await placeOf(t, folder)
  assert.deepEqual(await new DeadProcessTakeover().takeOver(place, never), [])
  living.child.kill('SIGCONT')
  await living.ask('end', 'bob')
  await living.kill()
  assert.equal((await new DeadProcessTakeover().takeOver(place, never)).length, 2)
})

test('of several processes one takes a folder over, and each file is there once', async (t) => {
  const folder = folderOf(t)
  const dead = processOf(t, { folder })
  await dead.ask('end', ...'abcdefghijklmnop')
  await dead.kill()
  const places = await Promise.all(Array.from({ length: 8 }, () => placeOf(t, folder)))
  const taken = await Promise.all(places.map((place) => new DeadProcessTakeover().takeOver(place, never)))
  assert.deepEqual(taken.map((names) => names.length).sort((one, other) => one - other), [0, 0, 0, 0, 0, 0, 0, 16])
  const files = filesIn(folder).filter((name) => /-events\.(json|pending)$/.test(name)) // pending: killed before its rename
  assert.equal(files.length, 16)
})

test('two processes publish side by side, none the other\'s events', async (t) => {
  const folder = folderOf(t)
  const there = await api(t)
  const processes = [processOf(t, { folder, url: there.url }), processOf(t, { folder, url: there.url })]
  await Promise.all(processes.map((each, nth) => each.ask('end', ...Array.from({ length: 20 }, (_, count) => `${nth}-${count}`))))
  await until(() => there.got.length === 40)
  assert.equal(new Set(there.events().map(({ sub }) => sub)).size, 40)
})

test('a process of a cluster, killed, leaves a folder that is taken over, though its primary lives', async (t) => {
  const folder = folderOf(t)
  const primary = fork(new URL('cluster.js', import.meta.url), [folder], { silent: true })
  t.after(() => primary.kill('SIGKILL'))
  await new Promise((resolve) => primary.once('message', resolve)) // its worker has written an event, and was killed
  const place = await placeOf(t, folder)
  assert.equal((await new DeadProcessTakeover().takeOver(place, never)).length, 1)
})

test('an owner on another machine counts as dead once its folder was still for 90 s', async (t) => {
  const folder = folderOf(t)
  const [ours, theirs] = [await placeOf(t, folder), await placeOf(t, folder)]
  await theirs.write('1-events', '.json', '{}')
  const owner = join(theirs.path, 'owner')
  writeFileSync(owner, JSON.stringify({ ...JSON.parse(readFileSync(owner, 'utf8')), boot: 'another kernel' }))
  let now = 0
  const takeover = new DeadProcessTakeover(() => now)
  const looked = async (at) => { now = at; return (await takeover.takeOver(ours, never)).length }
  assert.equal(await looked(0), 0)
  assert.equal(await looked(89_000), 0)
  utimesSync(owner, new Date(), new Date(Date.now() + 5_000)) // it lives
  assert.equal(await looked(91_000), 0)
  assert.equal(await looked(180_000), 0)
  assert.equal(await looked(181_001), 1)
})

test('a folder that is being created is left alone, and an unfinished folder is removed after an hour', async (t) => {
  const folder = folderOf(t)
  const place = await placeOf(t, folder)
  const fresh = join(folder, 'new-1')
  mkdirSync(fresh)
  await new DeadProcessTakeover().takeOver(place, never)
  assert.ok(existsSync(fresh))
  const long = new Date(Date.now() - 3_700_000)
  utimesSync(fresh, long, long)
  await new DeadProcessTakeover().takeOver(place, never)
  assert.ok(!existsSync(fresh))
})

test('killed amid a take-over: what it had moved is found in its own folder', async (t) => {
  const folder = folderOf(t)
  const [first, second] = [await OutboxFolder.claim(folder, ISSUER), await OutboxFolder.claim(folder, ISSUER)]
  await first.write('1-events', '.json', '{}')
  await first.release()
  renameSync(first.path, join(second.path, `taken-${first.name}`))
  await second.release()
  const place = await placeOf(t, folder)
  assert.deepEqual(await new DeadProcessTakeover().takeOver(place, never), ['1-events.json'])
})

test('a path longer than the kernel takes for sockets works as well', async (t) => {
  const folder = join(folderOf(t), 'x'.repeat(120))
  const [one, other] = [await placeOf(t, folder), await placeOf(t, folder)]
  await one.write('1-events', '.json', '{}')
  assert.ok(statSync(join(one.path, 'owner.sock')).isSocket())
  assert.deepEqual(await new DeadProcessTakeover().takeOver(other, never), [])
  await one.release()
  assert.deepEqual(await new DeadProcessTakeover().takeOver(other, never), ['1-events.json'])
})

test('folders that others can write to and links are not taken over, and are logged; the rest is taken over', { skip: process.getuid() !== 0 && 'only root gives files away' }, async (t) => {
  const folder = folderOf(t)
  const left = await Promise.all(['open', 'group', 'linked', 'readable', 'pod'].map(async (stem) => {
    const dead = await OutboxFolder.claim(folder, ISSUER)
    await dead.write(`1-${stem}-events`, '.json', JSON.stringify({ lane: 'events', session: null, event: { id: stem } }))
    await dead.release()
    return dead
  }))
  const [open, group, linked, readable, pod] = left.map(({ path }) => path)
  chmodSync(open, 0o777)
  chownSync(group, -1, 65534)
  chmodSync(group, 0o2770)
  const elsewhere = folderOf(t)
  renameSync(linked, join(elsewhere, 'linked'))
  symlinkSync(join(elsewhere, 'linked'), linked)
  chmodSync(readable, 0o755)
  chmodSync(pod, 0o2770) // as Kubernetes opens it to our own group, at each start
  const log = keptLog()
  const outbox = new Outbox({ outbox: { folder, maxEvents: 9, maxBytes: 9_999, maxAge: 9 }, limits: { signOut: 60_000 } }, new Logger(log), () => {}, ISSUER)
  t.after(() => outbox.close())
  await outbox.takeOver()
  assert.deepEqual([...outbox.ready.events.keys()].sort(), ['1-pod-events', '1-readable-events'])
  assert.deepEqual([filesIn(open, '.json'), filesIn(group, '.json'), filesIn(elsewhere, '.json')], [['1-open-events.json'], ['1-group-events.json'], ['1-linked-events.json']])
  const logged = log.of('not_taken_over').map(({ message }) => message).sort()
  assert.equal(logged.length, 3)
  for (const [at, mode] of [[0, 'mode 777'], [1, 'mode 770'], [2, 'is a link']]) {
    assert.ok(logged.some((message) => message.startsWith(`${left[at].name} in outbox.folder is not taken over`) && message.includes(mode)), logged.join('\n'))
  }
  chmodSync(open, 0o700) // the way out
  await outbox.takeOver()
  assert.ok(outbox.ready.events.has('1-open-events'))
})

test('the outbox folder may be open, as volumes are: our sub-folder is not', async (t) => {
  const folder = folderOf(t)
  chmodSync(folder, 0o777)
  const place = await placeOf(t, folder)
  assert.equal(statSync(place.path).mode & 0o777, 0o700)
})

const byRoot = { skip: process.getuid() !== 0 && 'only root gives files away' }
const NOBODY = 65534

test('a loose file of another user is left where it is', byRoot, async (t) => {
  const folder = folderOf(t)
  const place = await placeOf(t, folder)
  for (const name of ['ours.json', 'theirs.json']) writeFileSync(join(folder, name), '{}')
  chownSync(join(folder, 'theirs.json'), NOBODY, NOBODY)
  for (const [mode, taken] of [[0o1777, ['ours.json']], [0o755, []]]) { // closed, it may belong to another user than a process of root's
    chmodSync(folder, mode)
    const logged = []
    assert.deepEqual(await new DeadProcessTakeover().takeOver(place, (name, error) => logged.push([name, error.message])), taken)
    assert.deepEqual(logged.map(([name]) => name), ['theirs.json'])
    assert.match(logged[0][1], /another user.*chown/)
  }
})

test('a folder that was being made is removed with its own two files alone, and a foreign one or a link is reported', byRoot, async (t) => {
  const folder = folderOf(t)
  const place = await placeOf(t, folder)
  const elsewhere = folderOf(t)
  const names = ['empty', 'made', 'full', 'foreign', 'linked'].map((name) => `new-${name}`)
  for (const name of names) {
    const path = name === 'new-linked' ? elsewhere : join(folder, name)
    if (path !== elsewhere) mkdirSync(path)
    if (name !== 'new-empty') for (const file of ['owner', 'owner.sock']) writeFileSync(join(path, file), '')
    if (name === 'new-full') mkdirSync(join(path, 'sub'))
  }
  writeFileSync(join(folder, 'new-full', 'sub', 'file'), '')
  chownSync(join(folder, 'new-foreign'), NOBODY, NOBODY)
  symlinkSync(elsewhere, join(folder, 'new-linked'))
  const long = new Date(Date.now() - 3_700_000)
  for (const name of names) lutimesSync(join(folder, name), long, long)
  const logged = []
  await new DeadProcessTakeover().takeOver(place, (name, error) => logged.push(`${name}: ${error.message}`))
  assert.deepEqual(readdirSync(folder).filter((name) => name.startsWith('new-')), ['new-foreign', 'new-full', 'new-linked'])
  assert.deepEqual([filesIn(elsewhere), filesIn(join(folder, 'new-full')), filesIn(join(folder, 'new-foreign'))], [['owner', 'owner.sock'], ['file'], ['owner', 'owner.sock']])
  assert.equal(logged.length, 3)
  for (const [at, why] of [/new-foreign.*another user/, /new-full.*unexpected files/, /new-linked.*is a link/].entries()) assert.match(logged.sort()[at], why)
})

/** Objects in place of an outbox file that block their reader or never end. */
const STRANGE = {
  fifo: (path) => execFileSync('mkfifo', [path]),
  device: (path) => execFileSync('mknod', [path, 'c', '1', '5']),
  link: (path) => symlinkSync('/dev/zero', path),
  foreign: (path) => { writeFileSync(path, '{"released":true}'); chownSync(path, NOBODY, NOBODY) },
  huge: (path) => writeFileSync(path, ' '.repeat(2_000_000) + '{}')
}

for (const [kind, make] of Object.entries(STRANGE)) {
  test(`an owner file that is a ${kind} is not read: its folder counts as left after 90 s`, { ...byRoot, timeout: 20_000 }, async (t) => {
    const folder = folderOf(t)
    const [ours, theirs] = [await placeOf(t, folder), await OutboxFolder.claim(folder, ISSUER)]
    await theirs.write('1-events', '.json', '{}')
    await theirs.release()
    unlinkSync(join(theirs.path, 'owner'))
    make(join(theirs.path, 'owner'))
    let now = 0
    const takeover = new DeadProcessTakeover(() => now)
    assert.deepEqual(await takeover.takeOver(ours, never), [])
    now = 91_000
    assert.deepEqual(await takeover.takeOver(ours, never), ['1-events.json'])
  })

  test(`an event file that is a ${kind} is set aside, and those behind it are published`, { ...byRoot, timeout: 20_000 }, async (t) => {
    const folder = folderOf(t)
    const dead = processOf(t, { folder })
    await dead.ask('end', 'alice')
    await dead.kill()
    const [name] = readdirSync(folder)
    make(join(folder, name, 'put-events.json'))
    make(join(folder, name, 'sessions.jsonl'))
    const there = await api(t)
    const { log } = await rig(t, { folder, url: there.url, expiry: {} })
    await until(() => there.got.length === 1)
    await until(() => log.of('event_refused').length === 1)
    await until(() => readdirSync(folder).filter((each) => each.endsWith('.refused')).length === (kind === 'huge' ? 1 : 2)) // a journal of sessions may be large
  })
}

test('what takes the place of our folder in an open outbox is neither published nor written to', byRoot, async (t) => {
  const folder = folderOf(t)
  const place = await placeOf(t, folder)
  await place.write('1-events', '.json', '{}')
  const elsewhere = folderOf(t)
  writeFileSync(join(elsewhere, '1-events.json'), '{}')
  writeFileSync(join(elsewhere, 'victim'), 'kept')
  symlinkSync(join(elsewhere, 'victim'), join(elsewhere, 'owner'))
  for (const name of ['1-events.json', '.']) chownSync(join(elsewhere, name), NOBODY, NOBODY)
  renameSync(place.path, `${place.path}-away`)
  symlinkSync(elsewhere, place.path)
  await assert.rejects(readOwnFile(join(place.path, '1-events.json')), /another user/)
  await place.release()
  assert.equal(readFileSync(join(elsewhere, 'victim'), 'utf8'), 'kept')
})
