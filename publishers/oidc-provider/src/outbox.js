/**
 * Holds the pending events, each in a file; in memory if the disk fails or is full.
 *
 * `.part` while it is written, `.pending` while its session may yet live, `.json` once it may be published. `.refused` and
 * `.expired` are set aside in the outbox folder itself. Names sort by time and contain the lane.
 */
import { randomBytes } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { OutboxDisk } from './outbox_disk.js'
import { OutboxEntry, LANES, parseContent } from './outbox_entry.js'
import { withTimeout } from './publish_failure.js'
import { ForeignFileError, SESSIONS_FILE } from './outbox_folder.js'

/** @typedef {import('./outbox_entry.js').Lane} Lane */

const MAX_IN_MEMORY = 10_000
const BULK_SHARE = 0.9 // of the files and bytes; the rest is for sign-outs
const DISK_RETRY = 30_000
const TAKEOVER_INTERVAL = 60_000
const BATCH_SIZE = 64

export class Outbox {
  /** @param {Pick<import('./settings.js').Settings, 'outbox' | 'limits'>} settings @param {import('./logger.js').Logger} log @param {() => void} wake Called when an event can be published. @param {string} [issuer] The issuer of the sessions. */
  constructor (settings, log, wake, issuer) {
    this.limits = settings.outbox
    this.log = log
    this.wake = wake
    this.disk = new OutboxDisk(settings.outbox, settings.limits.signOut, log, () => { for (const entry of this.#all()) if (entry.onDisk) this.#gone(entry) }, issuer)
    this.counts = { written: 0, lost: 0, refused: 0, expired: 0 }
    /** @type {Record<Lane, Map<string, OutboxEntry>>} May be published, oldest first. */
    this.ready = { events: new Map(), bulk: new Map() }
    /** @type {Set<OutboxEntry>} Their sessions may live. */
    this.pending = new Set()
    /** @type {Set<OutboxEntry>} Their files cannot be read now. */
    this.postponed = new Set()
    this.inMemory = 0
    this.process = randomBytes(4).toString('hex')
    this.sequence = 0
    this.last = 0
    this.takingOver = false
    /** @type {(path: string) => Promise<void>} Restores the sessions that a dead process remembered. */
    this.remembered = unlink
    this.timers = [
      setInterval(() => this.persist().catch((error) => this.disk.failed(error)), DISK_RETRY).unref(),
      setInterval(() => { this.#resume(); this.takeOver() }, TAKEOVER_INTERVAL).unref()
    ]
  }

  get waiting () { return this.ready.events.size + this.ready.bulk.size + this.pending.size + this.postponed.size }

  /** When the oldest event that may be published was written; undefined if none waits. */
  get oldest () {
    const times = LANES.map((lane) => this.ready[lane].values().next().value?.since).filter((each) => each !== undefined)
    return times.length ? Math.min(...times) : undefined
  }

  /**
   * Write an event. It is durable afterwards; if it is only in memory or lost, this is logged.
   * @param {Lane} lane @param {import('./outbox_entry.js').SessionKey | undefined} session Undefined if it may be published at once.
   * @param {import('./event_builder.js').SessionEnded} event
   */
  async add (lane, session, event) {
    const text = JSON.stringify({ lane, session: session ?? null, event })
    const entry = new OutboxEntry(this.#stem(lane), lane, Buffer.byteLength(text), text)
    if (!session) entry.state = 'ready'
    if (!await this.#stored(entry)) {
      this.#recordLoss(entry, event.id, 'the disk cannot be written and memory holds 10000 events (5000 of a mass logout). Repair the broker or the disk')
      return entry
    }
    this.counts.written += 1
    if (entry.state === 'pending') this.pending.add(entry)
    else this.#makeReady(entry)
    return entry
  }

  /** Publish the event: its session is gone. @param {OutboxEntry} entry */
  async release (entry) {
    if (entry.state !== 'pending') return
    const before = entry.file
    entry.state = 'ready'
    if (entry.onDisk && !await this.disk.rename(before, entry.file)) { // not synced: a `.pending` is looked at again
      if (!entry.text || !this.#keepInMemory(entry)) {
        entry.state = 'pending' // it stays in its file, and is settled later or after the next start
        return
      }
      this.#offDisk(entry)
    }
    this.pending.delete(entry)
    this.#makeReady(entry)
  }

  /** Drop the event: its session lives. @param {OutboxEntry} entry */
  async withdraw (entry) {
    if (entry.state !== 'pending') return
    this.pending.delete(entry)
    await this.#drop(entry)
  }

  /** Up to `count` events that may be published, oldest first. @param {Lane} lane @param {number} count @param {(entry: OutboxEntry) => boolean} [filter] */
  next (lane, count, filter = () => true) {
    const entries = []
    for (const entry of this.ready[lane].values()) {
      if (filter(entry) && entries.push(entry) === count) break
    }
    return entries
  }

  /** Read and parse its content; throws InvalidEventError. @param {OutboxEntry} entry */
  async read (entry) {
    return parseContent(entry.text ?? await this.disk.read(entry.file))
  }

  /** Remove an event that is durable in notifier. @param {OutboxEntry} entry */
  async published (entry) {
    this.ready[entry.lane].delete(entry.stem)
    await this.#drop(entry)
  }

  /** Publish the other events first. @param {OutboxEntry} entry */
  postpone (entry) {
    this.ready[entry.lane].delete(entry.stem)
    this.postponed.add(entry)
  }

  /** Queue the postponed events again. */
  #resume () {
    for (const entry of this.postponed) this.ready[entry.lane].set(entry.stem, entry)
    if (this.postponed.size) this.#sort()
    this.postponed.clear()
    this.wake()
  }

  #sort () {
    for (const lane of LANES) this.ready[lane] = new Map([...this.ready[lane]].sort(([one], [other]) => one < other ? -1 : 1))
  }

  /** Forget an event whose file was deleted. @param {OutboxEntry} entry */
  missing (entry) {
    this.ready[entry.lane].delete(entry.stem)
    this.#forget(entry)
  }

  /** Set aside the file of an event for inspection. @param {OutboxEntry} entry @param {'refused' | 'expired'} how @param {string} why @param {string} [id] */
  async setAside (entry, how, why, id = 'unknown') {
    const file = `${entry.stem}.${how}`
    this.ready[entry.lane].delete(entry.stem)
    this.pending.delete(entry)
    this.counts[how] += 1
    this.log.log({ level: 'error', event: `event_${how}`, id, lane: entry.lane, file, message: `set aside as ${file} in the outbox folder: ${why}` })
    if (entry.onDisk) await this.disk.setAside(entry.file, file)
    this.#forget(entry)
  }

  /** Write events that are only in memory to the disk, as far as the limits permit. */
  async persist () {
    this.disk.retry()
    const entries = this.#all().filter(({ onDisk }) => !onDisk)
    entries.sort((one, other) => one.stem < other.stem ? -1 : 1)
    for (const lane of LANES) {
      const pending = entries.filter((entry) => entry.lane === lane)
      for (let at = 0; at < pending.length; at += BATCH_SIZE) {
        const moved = await Promise.all(pending.slice(at, at + BATCH_SIZE).map((entry) => this.#move(entry)))
        if (moved.includes(false)) break
      }
    }
  }

  /** Whether it is on disk now. @param {OutboxEntry} entry */
  async #move (entry) {
    if (entry.state === 'gone' || entry.onDisk) return true
    const { file } = entry
    if (!await this.#write(entry)) return false
    await this.#onWritten(entry, file)
    return true
  }

  /** Take over the events of dead processes. */
  async takeOver () {
    if (this.takingOver) return
    this.takingOver = true
    try {
      const names = await this.disk.takeOver()
      const { path } = await this.disk.claimed()
      for (const name of names) if (name.startsWith(SESSIONS_FILE)) await this.remembered(join(path, name)).catch((error) => {
        if (!(error instanceof ForeignFileError)) throw error
        return this.disk.setAside(name, `${name}.refused`)
      })
      const found = names.filter((name) => !name.startsWith(SESSIONS_FILE))
      for (let at = 0; at < found.length; at += BATCH_SIZE) await Promise.all(found.slice(at, at + BATCH_SIZE).map((name) => this.#addFound(name)))
      if (!found.length) return
      this.#sort()
      this.log.log({ level: 'info', event: 'taken_over', message: 'events that an earlier process left are published', count: found.length })
      this.wake()
    } catch (error) {
      this.disk.failed(error)
    } finally {
      this.takingOver = false
    }
  }

  /** Stop, and release the folder for other processes. */
  async close () {
    for (const timer of this.timers) clearInterval(timer)
    await this.disk.idle()
    if (this.inMemory) await this.persist()
    for (const entry of this.#all()) if (!entry.onDisk) this.#recordLoss(entry, parseContent(entry.text ?? '').event.id, 'it was only in memory, the disk cannot be written, and the process ends')
    await this.disk.release()
  }

  /** @param {string} name */
  async #addFound (name) {
    const [, stem = '', suffix] = /^(.*)\.(json|pending)$/.exec(name) ?? []
    if (!suffix) return this.disk.setAside(name, `${name}.refused`) // not a file of an outbox
    const entry = new OutboxEntry(stem, stem.endsWith('-bulk') ? 'bulk' : 'events', await this.disk.size(name))
    entry.onDisk = true
    this.disk.count(1, entry.size)
    if (suffix === 'pending') this.pending.add(entry)
    else {
      entry.state = 'ready'
      this.ready[entry.lane].set(stem, entry)
    }
  }

  #all () {
    return [...this.pending, ...this.postponed, ...this.ready.events.values(), ...this.ready.bulk.values()]
  }

  /** @param {Lane} lane */
  #stem (lane) {
    this.last = Math.max(this.last, Date.now())
    this.sequence += 1
    return `${String(this.last).padStart(15, '0')}-${String(this.sequence).padStart(9, '0')}-${this.process}-${lane}`
  }

  /** Continue in memory with an event whose folder was deleted. @param {OutboxEntry} entry */
  #gone (entry) {
    if (entry.text && this.#keepInMemory(entry)) this.#offDisk(entry)
    else {
      this.pending.delete(entry)
      this.missing(entry) // another process that took the folder publishes it
    }
  }

  /** Whether it is on the disk or in memory now. @param {OutboxEntry} entry */
  async #stored (entry) {
    const { file } = entry
    const writing = this.#write(entry)
    for (;;) {
      const written = await withTimeout(writing, this.disk.patience, 'late').catch(() => undefined)
      if (written !== undefined) return (entry.onDisk = written) || this.#keepInMemory(entry)
      if (this.disk.hangs() && this.#keepInMemory(entry)) {
        writing.then((late) => { if (late) return this.#onWritten(entry, file) }).catch((error) => this.disk.failed(error))
        return true
      }
    }
  }

  /** Whether it is on the disk now. @param {OutboxEntry} entry */
  #write (entry) {
    return this.disk.write(entry.stem, entry.state === 'ready' ? '.json' : '.pending', entry.text ?? '', entry.size, entry.lane === 'bulk' ? BULK_SHARE : 1)
  }

  /** Record that an event in memory was written to this file; meanwhile it may have been released, withdrawn or published. @param {OutboxEntry} entry @param {string} file */
  async #onWritten (entry, file) {
    if (entry.state === 'gone') {
      this.disk.count(-1, -entry.size)
      await this.disk.remove(file)
      return
    }
    entry.onDisk = true
    this.inMemory -= 1
    if (entry.file !== file) await this.disk.rename(file, entry.file)
    if (entry.state === 'ready') entry.text = undefined
  }

  /** Keep it in memory, if there is room. @param {OutboxEntry} entry */
  #keepInMemory (entry) {
    if (this.inMemory >= (entry.lane === 'bulk' ? MAX_IN_MEMORY / 2 : MAX_IN_MEMORY)) return false // half is for sign-outs
    this.inMemory += 1
    return true
  }

  /** @param {OutboxEntry} entry */
  #makeReady (entry) {
    if (entry.onDisk) entry.text = undefined
    this.ready[entry.lane].set(entry.stem, entry)
    this.wake()
  }

  /** @param {OutboxEntry} entry */
  #offDisk (entry) {
    entry.onDisk = false
    this.disk.count(-1, -entry.size)
  }

  /** @param {OutboxEntry} entry */
  #forget (entry) {
    if (entry.onDisk) this.#offDisk(entry)
    else this.inMemory -= 1
    entry.state = 'gone'
    entry.text = undefined
  }

  /** @param {OutboxEntry} entry */
  async #drop (entry) {
    const { onDisk, file } = entry
    this.#forget(entry)
    if (onDisk) await this.disk.remove(file)
  }

  /** @param {OutboxEntry} entry @param {string} id @param {string} why */
  #recordLoss (entry, id, why) {
    entry.state = 'gone'
    this.counts.lost += 1
    this.log.limited('lost', { level: 'error', event: 'event_lost', id, lane: entry.lane, message: `LOST, no client is notified of this sign-out: ${why}` }, 1_000)
  }
}
