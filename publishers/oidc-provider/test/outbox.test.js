/** The outbox: what is on the disk when, what happens when it takes nothing, and that nothing is forgotten silently. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { InterceptionTracker } from '../src/interception_tracker.js'
import { Logger } from '../src/logger.js'
import { Outbox } from '../src/outbox.js'
import { OutboxDisk } from '../src/outbox_disk.js'
import { OutboxFolder } from '../src/outbox_folder.js'
import { PendingEventResolver } from '../src/pending_event_resolver.js'
import { api, documentIn, filesIn, folderOf, keptLog, rig, until } from './rig.js'

const event = (id) => ({ id, iss: 'https://id.example.com', clients: [] })

/** An outbox alone, with nothing that publishes. */
function outboxOf (t, { folder = folderOf(t), maxEvents = 100_000, maxBytes = 268_435_456, maxAge = 1e9, signOut = 60_000 } = {}) {
  const log = keptLog()
  const outbox = new Outbox({ outbox: { folder, maxEvents, maxBytes, maxAge }, limits: { signOut } }, new Logger(log), () => {})
  t.after(() => outbox.close())
  return { outbox, log, folder, place: () => outbox.disk.place.path }
}

test('files are readable by their owner only, and match the contract', async (t) => {
  const { outbox, place } = outboxOf(t)
  const pending = await outbox.add('bulk', { uid: 'u' }, event('1'))
  assert.equal(statSync(place()).mode & 0o777, 0o700)
  const [name] = filesIn(place(), '.pending')
  assert.equal(statSync(join(place(), name)).mode & 0o777, 0o600)
  assert.deepEqual(JSON.parse(readFileSync(join(place(), name), 'utf8')), { lane: 'bulk', session: { uid: 'u' }, event: event('1') })
  assert.deepEqual(outbox.peekReady('bulk', 10), [])
  await outbox.markReady(pending)
  assert.deepEqual(filesIn(place(), 'bulk.json'), [name.replace('.pending', '.json')])
  assert.deepEqual([outbox.peekReady('bulk', 10), outbox.peekReady('events', 10)], [[pending], []])
  await outbox.removePublished(pending)
  assert.deepEqual(filesIn(place(), 'bulk.json'), [])
  assert.deepEqual([outbox.disk.events, outbox.disk.bytes], [0, 0])
})

test('full: events wait in memory, are published from there, and go to the disk once there is room', async (t) => {
  const { outbox, log, place } = outboxOf(t, { maxEvents: 3 })
  const entries = []
  for (let nth = 0; nth < 5; nth += 1) entries.push(await outbox.add('events', undefined, event(`${nth}`)))
  assert.deepEqual([filesIn(place(), 'events.json').length, outbox.inMemory, outbox.eventCount], [3, 2, 5])
  assert.deepEqual(log.of('outbox_full').map(({ level }) => level), ['error'])
  assert.deepEqual((await Promise.all(outbox.peekReady('events', 9).map((entry) => outbox.read(entry)))).map((each) => each.event.id), ['0', '1', '2', '3', '4'])
  await outbox.removePublished(entries[0])
  await outbox.writeMemoryToDisk()
  assert.deepEqual([filesIn(place(), 'events.json').length, outbox.inMemory], [3, 1])
  await outbox.removePublished(entries[4])
  assert.deepEqual([outbox.inMemory, outbox.eventCount], [0, 3])
})

test('bytes count as well as events', async (t) => {
  const { outbox } = outboxOf(t, { maxBytes: 250 })
  for (let nth = 0; nth < 3; nth += 1) await outbox.add('events', undefined, event(`${nth}`))
  assert.deepEqual([outbox.disk.events, outbox.inMemory], [2, 1])
})

test('memory full too: events are lost, counted, and logged with their ids', async (t) => {
  const { outbox, log } = outboxOf(t, { maxEvents: 1 })
  for (let nth = 0; nth < 10_003; nth += 1) await outbox.add('events', undefined, event(`e${nth}`))
  assert.deepEqual([outbox.counts.written, outbox.counts.lost, outbox.inMemory, outbox.eventCount], [10_001, 2, 10_000, 10_001])
  const [lost] = log.of('event_lost')
  assert.deepEqual([lost.level, lost.id], ['error', 'e10001'])
})

test('a disk that is full holds up nobody, and what is in memory follows once there is room', async (t) => {
  const folder = join(folderOf(t), 'disk')
  mkdirSync(folder)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k,mode=700', 'tmpfs', folder], { stdio: 'ignore' })
  } catch {
    return t.skip('only root may mount a file system')
  }
  t.after(() => execFileSync('umount', ['-l', folder]))
  const there = await api(t, () => open ? 202 : 503)
  let open = false
  const { session, logouts, log } = await rig(t, { folder, url: there.url, limits: { signOut: 60_000 } })
  await (await session('first', ['shop'])).destroy()
  const ballast = join(folder, 'ballast')
  for (const size of [65_536, 4_096]) try { for (;;) writeFileSync(ballast, Buffer.alloc(size), { flag: 'a' }) } catch {}
  for (const account of 'abcd') {
    const began = performance.now()
    await (await session(account, ['shop'])).destroy()
    assert.ok(performance.now() - began < 10_000)
  }
  assert.deepEqual([logouts.waiting, logouts.waitingInMemory, logouts.lost], [5, 4, 0])
  assert.deepEqual(log.of('outbox_unusable').map(({ level, code }) => [level, code]), [['error', 'ENOSPC']])
  assert.match(log.of('outbox_unusable')[0].message, /new events are kept in memory\. Free space on its disk$/)
  assert.deepEqual(filesIn(folder, '.part'), [])
  rmSync(ballast)
  open = true
  await until(() => logouts.published === 5)
  assert.deepEqual(there.events().map(({ sub }) => sub), ['first', ...'abcd'])
})

test('a disk that hangs: events wait in memory, are published from there, and others do not even try it', async (t) => {
  const { outbox, log, place, folder } = outboxOf(t, { signOut: 100 })
  await outbox.removePublished(await outbox.add('events', undefined, event('0')))
  const { write } = OutboxFolder.prototype
  let answer
  const answered = new Promise((resolve) => { answer = resolve })
  const alive = setInterval(() => {}, 1_000) // as the disk's own request would
  t.after(() => clearInterval(alive))
  let tries = 0
  outbox.disk.place.write = async function (...values) { // as a network file system whose server is unreachable
    tries += 1
    await answered
    return write.apply(this, values)
  }
  const [one, other] = await Promise.all([outbox.add('events', undefined, event('1')), outbox.add('events', { uid: 'u' }, event('2'))])
  await outbox.add('events', undefined, event('3'))
  assert.equal(tries, 2)
  assert.deepEqual([outbox.inMemory, outbox.eventCount, log.of('outbox_hangs').length], [3, 3, 1])
  await outbox.removePublished(one)
  await outbox.markReady(other)
  answer()
  await until(() => outbox.inMemory === 1 && filesIn(place(), '-events.json').length === 1)
  assert.deepEqual(filesIn(folder, '.pending'), [])
  await outbox.writeMemoryToDisk()
  assert.deepEqual([outbox.inMemory, outbox.disk.events, filesIn(place(), '-events.json').length], [0, 2, 2])
})

test('a disk that is busy is waited for: whoever ends many sessions at once', async (t) => {
  const { outbox, log } = outboxOf(t, { signOut: 1_000 })
  await outbox.add('bulk', undefined, event('0'))
  let last = Promise.resolve()
  outbox.disk.place.write = () => (last = last.then(() => new Promise((resolve) => setTimeout(resolve, 30)))) // one after the other
  const began = performance.now()
  await Promise.all(Array.from({ length: 50 }, (_, nth) => outbox.add('bulk', undefined, event(`${nth}`))))
  assert.ok(performance.now() - began > 1_400)
  assert.deepEqual([outbox.inMemory, outbox.counts.lost, log.records], [0, 0, []])
})

test('a folder that cannot be used at the start holds up nobody', async (t) => {
  const folder = folderOf(t)
  const { session, logouts, log, op } = await rig(t, { folder: join(folder, 'outbox'), limits: { drain: 1 } })
  assert.ok(op)
  await until(() => existsSync(join(folder, 'outbox')))
  await until(() => readdirSync(join(folder, 'outbox')).length)
  rmSync(join(folder, 'outbox'), { recursive: true })
  writeFileSync(join(folder, 'outbox'), 'a file')
  await (await session('alice', ['shop'])).destroy()
  assert.deepEqual([logouts.waitingInMemory, log.of('outbox_unusable').length], [1, 1])
  rmSync(join(folder, 'outbox'))
})

test('our sub-folder removed: the next event goes into another, and what is in memory is kept', async (t) => {
  const { outbox, log, folder, place } = outboxOf(t)
  const pending = await outbox.add('events', { uid: 'u' }, event('1'))
  const before = place()
  rmSync(before, { recursive: true })
  await outbox.markReady(pending)
  assert.deepEqual([outbox.eventCount, outbox.inMemory], [1, 1])
  await outbox.writeMemoryToDisk()
  assert.notEqual(place(), before)
  assert.equal(log.of('outbox_folder_lost').length, 1)
  assert.equal(filesIn(folder, 'events.json').length, 1)
  assert.equal(outbox.inMemory, 0)
})

test('an invalid event is set aside, and delays no other', async (t) => {
  const folder = folderOf(t)
  const texts = { a: 'no JSON', b: '{}', c: '{"event": {"id": 5}}', d: `{"event": {"id": "${'x'.repeat(256)}"}}`, e: 'null' }
  for (const [name, text] of Object.entries(texts)) writeFileSync(join(folder, `${name}.json`), text)
  writeFileSync(join(folder, 'f.json'), JSON.stringify({ lane: 'events', session: null, event: event('good') }))
  const there = await api(t)
  const { logouts, log } = await rig(t, { folder, url: there.url })
  await until(() => logouts.refused === 5 && logouts.published === 1)
  assert.deepEqual(filesIn(folder, '.refused'), ['a.refused', 'b.refused', 'c.refused', 'd.refused', 'e.refused'])
  assert.equal(log.of('event_refused').length, 5)
  assert.deepEqual(there.events(), [event('good')])
})

test('an event that is too old is set aside', async (t) => {
  const folder = folderOf(t)
  const old = String(Date.now() - 60_000).padStart(15, '0')
  const young = String(Date.now() - 1_000).padStart(15, '0')
  for (const [at, id] of [[old, 'old'], [young, 'young']]) writeFileSync(join(folder, `${at}-1-x-events.json`), JSON.stringify({ lane: 'events', session: null, event: event(id) }))
  const there = await api(t)
  const { logouts, log } = await rig(t, { folder, url: there.url, outbox: { maxAge: 30_000 } })
  await until(() => logouts.expired && logouts.published)
  assert.deepEqual(there.events().map(({ id }) => id), ['young'])
  assert.deepEqual(filesIn(folder, '.expired'), [`${old}-1-x-events.expired`])
  assert.deepEqual(log.of('event_expired').map(({ level, id }) => [level, id]), [['error', 'old']])
})

test('a file that was set aside is tried again under the name .json, in the outbox folder', async (t) => {
  const folder = folderOf(t)
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, '1-events.refused'), JSON.stringify({ lane: 'events', session: null, event: event('again') }))
  renameSync(join(folder, '1-events.refused'), join(folder, '1-events.json'))
  chmodSync(folder, 0o700)
  const there = await api(t)
  const { logouts } = await rig(t, { folder, url: there.url })
  await until(() => logouts.published === 1)
})

test('close publishes pending events, and a later sign-out succeeds and is kept for the next start', async (t) => {
  const slow = await api(t, () => new Promise((resolve) => setTimeout(resolve, 50, 202)))
  const { session, logouts, folder } = await rig(t, { url: slow.url })
  const sessions = await Promise.all('abcd'.split('').map((account) => session(account, ['shop'])))
  for (const each of sessions) await each.destroy()
  const late = await session('late', ['shop'])
  await logouts.close()
  assert.deepEqual([logouts.published, logouts.waiting], [4, 0])
  assert.deepEqual(readdirSync(folder), [])
  await late.destroy()
  await until(() => filesIn(folder, 'events.json').length === 1)
})

test('close gives up after its limit', async (t) => {
  const there = await api(t, () => new Promise((resolve) => setTimeout(resolve, 5_000, 202).unref()))
  const { session, logouts, folder } = await rig(t, { url: there.url, limits: { drain: 200 } })
  await (await session('alice', ['shop'])).destroy()
  const began = performance.now()
  await logouts.close()
  const took = performance.now() - began
  assert.ok(took >= 195 && took < 10_000, `${took} ms`)
  assert.equal(filesIn(folder, 'events.json').length, 1)
})

test('an outbox that an earlier release of the package left is taken over', async (t) => {
  const folder = folderOf(t)
  cpSync(new URL('former_outbox', import.meta.url), folder, { recursive: true })
  const there = await api(t)
  const { logouts } = await rig(t, { url: there.url, folder, outbox: { maxAge: 1e12 } })
  await until(() => logouts.published === 3)
  const lanes = Object.fromEntries(there.got.map(({ event: { sub }, path }) => [sub, path]))
  assert.deepEqual(lanes, { alice: '/v1/events', bob: '/v1/events?lane=bulk', carol: '/v1/events' })
  await until(() => logouts.waiting === 0 && filesIn(folder, '.json').length === 0)
})

test('a hanging disk delays a mass logout by one limit, not each session by one', async (t) => {
  const { outbox, place } = outboxOf(t, { signOut: 400 })
  await outbox.disk.claimFolder()
  const { write } = OutboxFolder.prototype
  let answers = () => {}
  const hanging = new Promise((resolve) => { answers = resolve })
  const busy = setInterval(() => {}, 50) // the outbox's own timers hold no process
  t.after(() => clearInterval(busy))
  OutboxFolder.prototype.write = async function (...values) { await hanging; return write.apply(this, values) }
  t.after(() => { OutboxFolder.prototype.write = write })
  const began = performance.now()
  for (let nth = 0; nth < 100; nth += 1) await outbox.add('bulk', undefined, event(String(nth)))
  assert.ok(performance.now() - began < 8_000, `${performance.now() - began} ms`) // with a limit for each: 40 s
  assert.equal(outbox.inMemory, 100)
  answers()
  await until(() => outbox.inMemory < 100)
  await outbox.writeMemoryToDisk()
  await until(() => filesIn(place(), '-bulk.json').length === 100)
})

test('a file that cannot be read delays no other event, and is read again', async (t) => {
  let broken = true
  const { read } = OutboxDisk.prototype
  const blocked = []
  OutboxDisk.prototype.read = async function (name) {
    blocked[0] ??= name
    if (broken && name === blocked[0]) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' })
    return read.call(this, name)
  }
  t.after(() => { OutboxDisk.prototype.read = read })
  const { setInterval: real } = globalThis
  const ticks = []
  globalThis.setInterval = (work, ms) => { if (ms === 60_000) ticks.push(work); return real(work, ms) }
  t.after(() => { globalThis.setInterval = real })
  const there = await api(t)
  const { session, logouts, log } = await rig(t, { url: there.url })
  for (const account of ['one', 'two', 'three']) await (await session(account, ['shop'])).destroy()
  await until(() => logouts.published === 2)
  assert.equal(logouts.waiting, 1)
  assert.equal(log.of('event_unreadable').length, 1)
  broken = false
  for (const tick of ticks) tick()
  await until(() => logouts.published === 3)
})

test('an event that is only in memory is written to the outbox folder when it is set aside', async (t) => {
  const { outbox, log, folder } = outboxOf(t, { maxEvents: 1 })
  const entries = []
  for (const id of ['stored', 'refused', 'expired']) entries.push(await outbox.add('events', undefined, event(id)))
  await outbox.setAside(entries[1], 'refused', 'notifier refuses it', 'refused')
  await outbox.setAside(entries[2], 'expired', 'it is too old', 'expired')
  for (const suffix of ['refused', 'expired']) {
    const [file] = readdirSync(folder).filter((name) => name.endsWith(`.${suffix}`))
    assert.equal(JSON.parse(readFileSync(join(folder, file), 'utf8')).event.id, suffix)
    assert.equal(statSync(join(folder, file)).mode & 0o777, 0o600)
    assert.deepEqual(log.of(`event_${suffix}`).map((record) => [record.id, record.file]), [[suffix, file]])
  }
  assert.deepEqual([outbox.inMemory, outbox.eventCount, outbox.counts.refused, outbox.counts.expired, outbox.counts.lost], [0, 1, 1, 1, 0])
  assert.deepEqual(filesIn(folder, '.json').length, 1)
})

test('an event that is set aside while its write hangs is moved once the disk responds', async (t) => {
  const { outbox, log, folder } = outboxOf(t, { signOut: 100 })
  await outbox.disk.claimFolder()
  const { write } = OutboxFolder.prototype
  let answers = () => {}
  const hanging = new Promise((resolve) => { answers = resolve })
  const busy = setInterval(() => {}, 50)
  t.after(() => clearInterval(busy))
  outbox.disk.place.write = async function (...values) { await hanging; return write.apply(this, values) }
  const entry = await outbox.add('events', undefined, event('late'))
  await outbox.setAside(entry, 'refused', 'notifier refuses it', 'late')
  assert.match(log.of('event_refused')[0].message, /once the disk responds/)
  assert.deepEqual(filesIn(folder, '.refused'), [])
  answers()
  await until(() => filesIn(folder, '.refused').length === 1)
  assert.equal(documentIn(folder, '.refused').event.id, 'late')
  assert.deepEqual([filesIn(folder, '.json'), outbox.disk.events, outbox.inMemory], [[], 0, 0])
})

test('an event that cannot be set aside is not reported as set aside', async (t) => {
  const { outbox, log, folder } = outboxOf(t, { maxEvents: 1 })
  const [onDisk, inMemory] = [await outbox.add('events', undefined, event('1')), await outbox.add('events', undefined, event('2'))]
  outbox.disk.place.write = async () => { throw Object.assign(new Error('full'), { code: 'ENOSPC' }) }
  await outbox.setAside(inMemory, 'refused', 'notifier refuses it', '2')
  for (const name of [`${onDisk.stem}.refused`]) mkdirSync(join(folder, name, 'x'), { recursive: true }) // a rename fails
  await outbox.setAside(onDisk, 'refused', 'notifier refuses it', '1')
  const messages = log.of('event_refused').map(({ message }) => message)
  assert.match(messages[0], /^it was only in memory and cannot be set aside as .*, so it is no longer kept: notifier refuses it$/)
  assert.match(messages[1], /^its file .*\.json cannot be set aside as [^:]*, which is tried again after a restart: notifier refuses it$/)
  assert.equal(filesIn(folder, 'events.json').length, 1)
})

test('events whose folder was removed are lost: counted, and logged with their files', async (t) => {
  const { outbox, log, place } = outboxOf(t)
  const ready = []
  for (const id of ['1', '2', '3']) ready.push(await outbox.add('events', undefined, event(id)))
  await outbox.add('events', { uid: 'u' }, event('4')) // its content is in memory until its session has ended
  rmSync(place(), { recursive: true })
  const error = await outbox.read(ready[0]).catch((failure) => failure)
  outbox.onUnreadable(ready[0], error)
  await outbox.takeOver()
  assert.deepEqual([outbox.counts.lost, outbox.inMemory, outbox.eventCount], [3, 1, 1])
  const [first, others] = log.of('event_lost')
  assert.equal(first.file, `${ready[0].stem}.json`)
  assert.deepEqual([others.count, others.files], [2, ready.slice(1).map(({ stem }) => `${stem}.json`)])
  assert.deepEqual([outbox.disk.events, outbox.disk.bytes], [0, 0])
})

test('events of a folder that another process took over are not lost', async (t) => {
  const { outbox, log, place } = outboxOf(t)
  const entry = await outbox.add('events', undefined, event('1'))
  outbox.disk.place.touchedAt -= 90_000 // this process stood still
  rmSync(place(), { recursive: true })
  outbox.onUnreadable(entry, await outbox.read(entry).catch((failure) => failure))
  await outbox.takeOver()
  assert.deepEqual([outbox.counts.lost, outbox.eventCount, log.of('outbox_folder_lost').length], [0, 0, 1])
})

test('a pending file that is missing or unreadable stops no other lookup', async (t) => {
  const { outbox, log, place } = outboxOf(t)
  const [missing, folder, ended] = [await outbox.add('events', { uid: 'a' }, event('1')), await outbox.add('events', { uid: 'b' }, event('2')), await outbox.add('events', { uid: 'c' }, event('3'))]
  missing.text = folder.text = undefined // as after a takeover
  rmSync(join(place(), missing.file))
  const { read } = OutboxDisk.prototype
  outbox.disk.read = async function (name) {
    if (name === folder.file) throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO' })
    return read.call(this, name)
  }
  const lookup = new PendingEventResolver(outbox, async () => undefined, new Logger(log))
  t.after(() => lookup.stop())
  await lookup.resolvePending()
  assert.deepEqual(outbox.peekReady('events', 9), [ended])
  assert.deepEqual([[...outbox.pending], outbox.counts.lost, log.of('event_unreadable').length], [[folder], 1, 1])
})

test('the oldest event is found, and each deferred event probed, although another became ready first', async (t) => {
  const { outbox } = outboxOf(t)
  const entries = []
  for (const id of ['1', '2', '3']) entries.push(await outbox.add('events', { uid: id }, event(id)))
  entries[0].since -= 5_000
  for (const nth of [2, 0, 1]) await outbox.markReady(entries[nth])
  assert.deepEqual(outbox.peekReady('events', 9), [entries[2], entries[0], entries[1]])
  assert.equal(outbox.oldestReadyWrittenAt, entries[0].since)
  const tracker = new InterceptionTracker()
  const probed = Array.from({ length: 4 }, () => tracker.selectProbe(outbox.peekReady('events', 9)))
  assert.deepEqual(probed, [entries[0], entries[1], entries[2], entries[0]])
})

test('a lookup that ends after the close loses no event', async (t) => {
  const { outbox, log, folder } = outboxOf(t)
  const entry = await outbox.add('events', { uid: 'a' }, event('1'))
  entry.text = undefined // as after a takeover
  await outbox.close()
  const lookup = new PendingEventResolver(outbox, async () => undefined, new Logger(log))
  t.after(() => lookup.stop())
  await lookup.resolvePending()
  assert.deepEqual([outbox.counts.lost, log.of('event_lost'), filesIn(folder, '.pending').length], [0, [], 1])
})
