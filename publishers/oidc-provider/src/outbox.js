/**
 * Holds the pending events, each in a file; in memory if the disk fails or is full.
 *
 * `.part` while it is written, `.pending` while its session may yet live, `.json` once it may be published. `.refused` and
 * `.expired` are set aside in the outbox folder itself. Names sort by time and contain the lane.
 */
import { randomBytes } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Disk } from './disk.js'
import { Entry, LANES, contentOf } from './entry.js'
import { within } from './failure.js'
import { NotOurs, REMEMBERED } from './place.js'

/** @typedef {import('./entry.js').Lane} Lane */

const IN_MEMORY = 10_000
const BULK_SHARE = 0.9 // of the files and bytes; the rest is for sign-outs
const TRY_DISK_AGAIN = 30_000
const TAKE_OVER = 60_000
const AT_ONCE = 64

export class Outbox {
  /** @param {Pick<import('./settings.js').Settings, 'outbox' | 'limits'>} settings @param {import('./log.js').Logger} log @param {() => void} wake There is something to publish. @param {string} [issuer] Whose sessions they are. */
  constructor (settings, log, wake, issuer) {
    this.limits = settings.outbox
    this.log = log
    this.wake = wake
    this.disk = new Disk(settings.outbox, settings.limits.signOut, log, () => { for (const entry of this.#all()) if (entry.onDisk) this.#gone(entry) }, issuer)
    this.counts = { written: 0, lost: 0, refused: 0, expired: 0 }
    /** @type {Record<Lane, Map<string, Entry>>} May be published, oldest first. */
    this.ready = { events: new Map(), bulk: new Map() }
    /** @type {Set<Entry>} Their sessions may live. */
    this.pending = new Set()
    this.inMemory = 0
    this.process = randomBytes(4).toString('hex')
    this.sequence = 0
    this.last = 0
    this.takingOver = false
    /** @type {(path: string) => Promise<void>} Hears of the sessions that a dead process remembered. */
    this.remembered = unlink
    this.timers = [
      setInterval(() => this.persist().catch((error) => this.disk.failed(error)), TRY_DISK_AGAIN).unref(),
      setInterval(() => this.takeOver(), TAKE_OVER).unref()
    ]
  }

  get waiting () { return this.ready.events.size + this.ready.bulk.size + this.pending.size }

  /** When the oldest event that may be published was written; undefined if none waits. */
  get oldest () {
    const times = LANES.map((lane) => this.ready[lane].values().next().value?.since).filter((each) => each !== undefined)
    return times.length ? Math.min(...times) : undefined
  }

  /**
   * Write an event. It is durable afterwards; if it is only in memory or lost, this is logged.
   * @param {Lane} lane @param {import('./entry.js').SessionKey | undefined} session Undefined if it may be published at once.
   * @param {import('./event.js').SessionEnded} event
   */
  async add (lane, session, event) {
    const text = JSON.stringify({ lane, session: session ?? null, event })
    const entry = new Entry(this.#stem(lane), lane, Buffer.byteLength(text), text)
    if (!session) entry.state = 'ready'
    if (!await this.#stored(entry)) {
      this.#lose(entry, event.id, 'the disk takes nothing and memory holds 10000 events. Bring the broker back, or make room')
      return entry
    }
    this.counts.written += 1
    if (entry.state === 'pending') this.pending.add(entry)
    else this.#offer(entry)
    return entry
  }

  /** The session is gone: publish. @param {Entry} entry */
  async release (entry) {
    if (entry.state !== 'pending') return
    const before = entry.file
    entry.state = 'ready'
    if (entry.onDisk && !await this.disk.rename(before, entry.file)) { // not synced: a `.pending` is looked at again
      if (!entry.text || !this.#keep(entry)) {
        entry.state = 'pending' // it stays in its file, and is settled later or after the next start
        return
      }
      this.#offDisk(entry)
    }
    this.pending.delete(entry)
    this.#offer(entry)
  }

  /** Drop the event: its session lives. @param {Entry} entry */
  async withdraw (entry) {
    if (entry.state !== 'pending') return
    this.pending.delete(entry)
    await this.#drop(entry)
  }

  /** Up to `count` events that may be published, oldest first. @param {Lane} lane @param {number} count @param {(entry: Entry) => boolean} [filter] */
  next (lane, count, filter = () => true) {
    const entries = []
    for (const entry of this.ready[lane].values()) {
      if (filter(entry) && entries.push(entry) === count) break
    }
    return entries
  }

  /** Read and parse its content; throws NoEvent. @param {Entry} entry */
  async read (entry) {
    return contentOf(entry.text ?? await this.disk.read(entry.file))
  }

  /** It is durable elsewhere. @param {Entry} entry */
  async published (entry) {
    this.ready[entry.lane].delete(entry.stem)
    await this.#drop(entry)
  }

  /** Its file is gone, so that nothing can be published. @param {Entry} entry */
  missing (entry) {
    this.ready[entry.lane].delete(entry.stem)
    this.#forget(entry)
  }

  /** Give up the event, and keep its file for inspection. @param {Entry} entry @param {'refused' | 'expired'} how @param {string} why @param {string} [id] */
  async setAside (entry, how, why, id = 'unknown') {
    const file = `${entry.stem}.${how}`
    this.ready[entry.lane].delete(entry.stem)
    this.pending.delete(entry)
    this.counts[how] += 1
    this.log.tell({ level: 'error', event: `event_${how}`, id, lane: entry.lane, file, message: `set aside as ${file} in the outbox folder: ${why}` })
    if (entry.onDisk) await this.disk.setAside(entry.file, file)
    this.#forget(entry)
  }

  /** Move to the disk what is in memory alone, as far as there is room. */
  async persist () {
    this.disk.forgive()
    const entries = this.#all().filter(({ onDisk }) => !onDisk)
    entries.sort((one, other) => one.stem < other.stem ? -1 : 1)
    for (const lane of LANES) {
      const pending = entries.filter((entry) => entry.lane === lane)
      for (let at = 0; at < pending.length; at += AT_ONCE) {
        const moved = await Promise.all(pending.slice(at, at + AT_ONCE).map((entry) => this.#move(entry)))
        if (moved.includes(false)) break
      }
    }
  }

  /** Whether it is not in memory alone any more. @param {Entry} entry */
  async #move (entry) {
    if (entry.state === 'gone' || entry.onDisk) return true
    const { file } = entry
    if (!await this.#write(entry)) return false
    await this.#landed(entry, file)
    return true
  }

  /** Take over what dead processes left. */
  async takeOver () {
    if (this.takingOver) return
    this.takingOver = true
    try {
      const names = await this.disk.takeOver()
      const { path } = await this.disk.placed()
      for (const name of names) if (name.startsWith(REMEMBERED)) await this.remembered(join(path, name)).catch((error) => {
        if (!(error instanceof NotOurs)) throw error
        return this.disk.setAside(name, `${name}.refused`)
      })
      const found = names.filter((name) => !name.startsWith(REMEMBERED))
      for (let at = 0; at < found.length; at += AT_ONCE) await Promise.all(found.slice(at, at + AT_ONCE).map((name) => this.#inherit(name)))
      if (!found.length) return
      for (const lane of LANES) this.ready[lane] = new Map([...this.ready[lane]].sort(([one], [other]) => one < other ? -1 : 1))
      this.log.tell({ level: 'info', event: 'taken_over', message: 'events that an earlier process left are published', count: found.length })
      this.wake()
    } catch (error) {
      this.disk.failed(error)
    } finally {
      this.takingOver = false
    }
  }

  /** Stop, and let others take over what is left. */
  async close () {
    for (const timer of this.timers) clearInterval(timer)
    await this.disk.idle()
    if (this.inMemory) await this.persist()
    for (const entry of this.#all()) if (!entry.onDisk) this.#lose(entry, contentOf(entry.text ?? '').event.id, 'it was in memory alone, since the disk takes nothing, and the process ends')
    await this.disk.release()
  }

  /** @param {string} name */
  async #inherit (name) {
    const [, stem = '', suffix] = /^(.*)\.(json|pending)$/.exec(name) ?? []
    if (!suffix) return this.disk.setAside(name, `${name}.refused`) // none of ours
    const entry = new Entry(stem, stem.endsWith('-bulk') ? 'bulk' : 'events', await this.disk.size(name))
    entry.onDisk = true
    this.disk.count(1, entry.size)
    if (suffix === 'pending') this.pending.add(entry)
    else {
      entry.state = 'ready'
      this.ready[entry.lane].set(stem, entry)
    }
  }

  #all () {
    return [...this.pending, ...this.ready.events.values(), ...this.ready.bulk.values()]
  }

  /** @param {Lane} lane */
  #stem (lane) {
    this.last = Math.max(this.last, Date.now())
    this.sequence += 1
    return `${String(this.last).padStart(15, '0')}-${String(this.sequence).padStart(9, '0')}-${this.process}-${lane}`
  }

  /** Our folder is gone, and this file with it: what we still know of it goes on in memory. @param {Entry} entry */
  #gone (entry) {
    if (entry.text && this.#keep(entry)) this.#offDisk(entry)
    else {
      this.pending.delete(entry)
      this.missing(entry) // whoever took the folder publishes it
    }
  }

  /** Whether it is on the disk or in memory now. @param {Entry} entry */
  async #stored (entry) {
    const { file } = entry
    const writing = this.#write(entry)
    for (;;) {
      const written = await within(writing, this.disk.patience, 'late').catch(() => undefined)
      if (written !== undefined) return (entry.onDisk = written) || this.#keep(entry)
      if (this.disk.hangs() && this.#keep(entry)) {
        writing.then((late) => { if (late) return this.#landed(entry, file) }).catch((error) => this.disk.failed(error))
        return true
      }
    }
  }

  /** Whether it is on the disk now. @param {Entry} entry */
  #write (entry) {
    return this.disk.write(entry.stem, entry.state === 'ready' ? '.json' : '.pending', entry.text ?? '', entry.size, entry.lane === 'bulk' ? BULK_SHARE : 1)
  }

  /** Record that an event in memory was written to this file; meanwhile it may have been released, withdrawn or published. @param {Entry} entry @param {string} file */
  async #landed (entry, file) {
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

  /** Keep it in memory, if there is room. @param {Entry} entry */
  #keep (entry) {
    if (this.inMemory >= (entry.lane === 'bulk' ? IN_MEMORY / 2 : IN_MEMORY)) return false // half is for sign-outs
    this.inMemory += 1
    return true
  }

  /** @param {Entry} entry */
  #offer (entry) {
    if (entry.onDisk) entry.text = undefined
    this.ready[entry.lane].set(entry.stem, entry)
    this.wake()
  }

  /** @param {Entry} entry */
  #offDisk (entry) {
    entry.onDisk = false
    this.disk.count(-1, -entry.size)
  }

  /** @param {Entry} entry */
  #forget (entry) {
    if (entry.onDisk) this.#offDisk(entry)
    else this.inMemory -= 1
    entry.state = 'gone'
    entry.text = undefined
  }

  /** @param {Entry} entry */
  async #drop (entry) {
    const { onDisk, file } = entry
    this.#forget(entry)
    if (onDisk) await this.disk.remove(file)
  }

  /** @param {Entry} entry @param {string} id @param {string} why */
  #lose (entry, id, why) {
    entry.state = 'gone'
    this.counts.lost += 1
    this.log.again('lost', { level: 'error', event: 'event_lost', id, lane: entry.lane, message: `LOST, no client is notified of this sign-out: ${why}` }, 1_000)
  }
}
