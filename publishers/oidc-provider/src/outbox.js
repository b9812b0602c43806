/**
 * Holds the events that wait, each in a file of its own; in memory where the disk takes nothing.
 *
 * `.part` while it is written, `.pending` while its session may yet live, `.json` once it may be published. `.refused` and
 * `.expired` are set aside in the outbox folder itself. Names sort by time and tell the lane.
 */
import { randomBytes } from 'node:crypto'
import { readFile, rename, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { Inheritance, Place, REMEMBERED, codeOf } from './place.js'

/** @typedef {import('./settings.js').Settings} Settings */
/** @typedef {import('./event.js').SessionEnded} SessionEnded */
/** @typedef {'events' | 'bulk'} Lane */
/** @typedef {{uid: string}} SessionKey What tells whether the session lives. */

const IN_MEMORY = 10_000
const TRY_DISK_AGAIN = 30_000
const TAKE_OVER = 60_000
const HANGS = 2_000
const AT_ONCE = 64
/** @type {Lane[]} */
export const LANES = ['events', 'bulk']

/** One event that waits. */
export class Entry {
  /** @param {string} stem @param {Lane} lane @param {number} size @param {string} [text] Its content, while it is not surely in a file. */
  constructor (stem, lane, size, text) {
    this.stem = stem
    this.lane = lane
    this.size = size
    this.text = text
    this.onDisk = false
    /** @type {number | undefined} Since when our own process has been ending its session. */
    this.ending = undefined
    /** @type {'pending' | 'ready' | 'gone'} */
    this.state = 'pending'
    this.since = Number(stem.slice(0, 15)) || Date.now()
  }

  get suffix () { return this.state === 'ready' ? '.json' : '.pending' }
}

/** The file is no event. */
export class NoEvent extends Error {}

export class Outbox {
  /** @param {Settings} settings @param {import('./log.js').Logger} log @param {() => void} wake */
  constructor (settings, log, wake) {
    this.limits = settings.outbox
    this.log = log
    this.wake = wake
    this.counts = { written: 0, lost: 0, refused: 0, expired: 0 }
    /** @type {Record<Lane, Map<string, Entry>>} Oldest first. */
    this.ready = { events: new Map(), bulk: new Map() }
    /** @type {Set<Entry>} Whose sessions may live. */
    this.pending = new Set()
    this.onDisk = { events: 0, bytes: 0 }
    this.inMemory = 0
    this.process = randomBytes(4).toString('hex')
    this.sequence = 0
    this.last = 0
    this.badUntil = 0
    /** @type {Set<{since: number}>} Under way, oldest first. */
    this.writes = new Set()
    this.inheritance = new Inheritance()
    /** @type {Place | undefined} */
    this.place = undefined
    /** @type {Promise<Place> | undefined} */
    this.claiming = undefined
    /** @type {(path: string) => Promise<void>} Hears of the sessions that a dead process remembered. */
    this.remembered = unlink
    this.takingOver = false
    this.timers = [
      setInterval(() => this.persist().catch((error) => this.#diskFailed(error)), TRY_DISK_AGAIN).unref(),
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
   * Write an event. It is durable then, or in memory, or lost; which is told in the log.
   * @param {Lane} lane @param {SessionKey | undefined} session Undefined if it may be published at once. @param {SessionEnded} event
   */
  async add (lane, session, event) {
    const text = JSON.stringify({ lane, session: session ?? null, event })
    const entry = new Entry(this.#stem(lane), lane, Buffer.byteLength(text), text)
    if (!session) entry.state = 'ready'
    if (!await this.#write(entry) && !this.#keep(entry)) {
      entry.state = 'gone'
      this.counts.lost += 1
      this.log.again('lost', { level: 'error', event: 'event_lost', id: event.id, lane, message: 'LOST: the disk takes nothing and memory holds 10000 events; nobody will hear of this sign-out. Bring the broker back, or make room' }, 1_000)
      return entry
    }
    this.counts.written += 1
    if (entry.state === 'ready') {
      if (entry.onDisk) entry.text = undefined
      this.#offer(entry)
    } else this.pending.add(entry)
    return entry
  }

  /** The session is gone: publish. @param {Entry} entry */
  async release (entry) {
    if (entry.state !== 'pending') return
    entry.state = 'ready'
    if (entry.onDisk) {
      try {
        await this.place?.rename(entry.stem + '.pending', entry.stem + '.json') // not synced: a `.pending` is looked at again
        entry.text = undefined
      } catch (error) {
        this.#diskFailed(error)
        if (!entry.text || !this.#keep(entry)) {
          entry.state = 'pending' // the file says what we know, later or after the next start
          return
        }
        this.#offDisk(entry)
      }
    }
    this.pending.delete(entry)
    this.#offer(entry)
  }

  /** The session lives: nobody hears of it. @param {Entry} entry */
  async withdraw (entry) {
    if (entry.state !== 'pending') return
    this.pending.delete(entry)
    await this.#drop(entry)
  }

  /** Up to `count` events that may be published, oldest first. @param {Lane} lane @param {number} count */
  next (lane, count) {
    const entries = []
    for (const entry of this.ready[lane].values()) {
      if (entries.push(entry) === count) break
    }
    return entries
  }

  /** What it says; throws NoEvent. @param {Entry} entry @returns {Promise<{session: SessionKey | null, event: SessionEnded}>} */
  async read (entry) {
    const text = entry.text ?? await readFile(join(this.place?.path ?? '', entry.stem + entry.suffix), 'utf8')
    let document
    try { document = JSON.parse(text) } catch { throw new NoEvent('it is no JSON') }
    const event = document?.event
    if (event === null || typeof event !== 'object') throw new NoEvent('it holds no event')
    if (typeof event.id !== 'string' || !event.id || Buffer.byteLength(event.id) > 255) throw new NoEvent('its event has no id of 1 to 255 bytes')
    return document
  }

  /** It is durable elsewhere. @param {Entry} entry */
  async published (entry) {
    this.ready[entry.lane].delete(entry.stem)
    await this.#drop(entry)
  }

  /** It is gone from our folder, so that nothing can be published. @param {Entry} entry */
  missing (entry) {
    this.ready[entry.lane].delete(entry.stem)
    if (entry.onDisk) this.#offDisk(entry)
    entry.state = 'gone'
  }

  /** Nobody will hear of it: keep its file for whoever looks. @param {Entry} entry @param {'refused' | 'expired'} how @param {string} why @param {string} [id] */
  async setAside (entry, how, why, id) {
    this.ready[entry.lane].delete(entry.stem)
    this.pending.delete(entry)
    this.counts[how] += 1
    this.log.tell({ level: 'error', event: `event_${how}`, id: id ?? 'unknown', lane: entry.lane, file: `${entry.stem}.${how}`, message: `set aside as ${entry.stem}.${how} in the outbox folder: ${why}` })
    if (entry.onDisk) {
      await rename(join(this.place?.path ?? '', entry.stem + entry.suffix), join(this.limits.folder, `${entry.stem}.${how}`)).catch((error) => this.#diskFailed(error))
    }
    this.#offMemoryOrDisk(entry)
    entry.state = 'gone'
  }

  /** Move to the disk what is in memory alone, as far as there is room. */
  async persist () {
    this.badUntil = 0
    const entries = this.#all().filter(({ onDisk }) => !onDisk)
    for (const entry of entries.sort((one, other) => one.stem < other.stem ? -1 : 1)) {
      if (entry.state === 'gone' || entry.onDisk) continue
      const written = entry.suffix
      if (!await this.#write(entry)) return
      if (/** @type {string} */ (entry.state) === 'gone') { // published meanwhile
        this.#offDisk(entry)
        await this.#unlink(entry.stem + written)
      } else {
        this.inMemory -= 1
        if (entry.suffix !== written) await this.place?.rename(entry.stem + written, entry.stem + entry.suffix).catch((error) => this.#diskFailed(error))
        if (entry.state === 'ready') entry.text = undefined
      }
    }
  }

  /** Take over what dead processes left. */
  async takeOver () {
    if (this.takingOver) return
    this.takingOver = true
    try {
      const place = await this.#placed()
      const names = await this.inheritance.takeOver(place, (name, error) => this.log.again(`left ${name}`, {
        level: 'error', event: 'not_taken_over', message: `what a process left in ${name} cannot be taken over (${codeOf(error)}): all processes must run as one user`
      }))
      for (const name of names) if (name.startsWith(REMEMBERED)) await this.remembered(join(place.path, name))
      const found = names.filter((name) => !name.startsWith(REMEMBERED))
      for (let at = 0; at < found.length; at += AT_ONCE) await Promise.all(found.slice(at, at + AT_ONCE).map((name) => this.#inherit(place, name)))
      if (!found.length) return
      for (const lane of LANES) this.ready[lane] = new Map([...this.ready[lane]].sort(([one], [other]) => one < other ? -1 : 1))
      this.log.tell({ level: 'info', event: 'taken_over', message: 'events that an earlier process left are published', count: found.length })
      this.wake()
    } catch (error) {
      this.#diskFailed(error)
    } finally {
      this.takingOver = false
    }
  }

  /** Stop, and let others take over what is left. */
  async close () {
    for (const timer of this.timers) clearInterval(timer)
    if (this.inMemory) await this.persist()
    for (const entry of this.#all()) if (!entry.onDisk) this.#lose(entry)
    await this.claiming?.catch(() => {})
    const { place } = this
    this.place = undefined // whoever is signed out from now on is told after the next start
    await place?.release()
  }

  /** @param {Place} place @param {string} name */
  async #inherit (place, name) {
    const [, stem = name, suffix] = /^(.*)\.(json|pending)$/.exec(name) ?? []
    if (!suffix) { // none of ours
      await rename(join(place.path, name), join(this.limits.folder, `${name}.refused`))
      return
    }
    const size = await stat(join(place.path, name)).then((file) => file.size, () => 0)
    const entry = new Entry(stem, stem.endsWith('-bulk') ? 'bulk' : 'events', size)
    entry.onDisk = true
    this.onDisk.events += 1
    this.onDisk.bytes += size
    if (suffix === 'json') {
      entry.state = 'ready'
      this.ready[entry.lane].set(stem, entry)
    } else this.pending.add(entry)
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

  /** The sub-folder that is ours; another if it was taken from us. @returns {Promise<Place>} */
  async #placed () {
    if (this.place && !this.place.lost) return this.place
    if (!this.claiming) {
      const before = this.place
      this.claiming = Place.claim(this.limits.folder).finally(() => { this.claiming = undefined })
      this.place = await this.claiming
      if (before) {
        this.log.tell({ level: 'error', event: 'outbox_folder_lost', message: 'our sub-folder of the outbox was removed, or taken over by a process on another machine; a new one is in use' })
        await before.release()
        for (const entry of this.#all()) if (entry.onDisk) this.#gone(entry)
      }
      return this.place
    }
    return this.claiming
  }

  /** Our folder is gone, and this file with it: what we still know of it goes on in memory. @param {Entry} entry */
  #gone (entry) {
    this.#offDisk(entry)
    if (entry.text && this.#keep(entry)) return
    this.pending.delete(entry)
    this.ready[entry.lane].delete(entry.stem)
    entry.state = 'gone' // whoever took the folder publishes it
  }

  /** Whether it is on the disk now. @param {Entry} entry */
  async #write (entry) {
    if (performance.now() < this.badUntil || this.#hangs()) return false
    if (this.onDisk.events >= this.limits.maxEvents || this.onDisk.bytes + entry.size > this.limits.maxBytes) {
      this.log.again('full', { level: 'error', event: 'outbox_full', message: `the outbox holds ${this.onDisk.events} events in ${this.onDisk.bytes} bytes, and takes no more: events wait in memory. Bring the broker back, or raise outbox.maxEvents or outbox.maxBytes` })
      return false
    }
    this.onDisk.events += 1
    this.onDisk.bytes += entry.size
    const write = { since: performance.now() }
    this.writes.add(write)
    try {
      const place = await this.#placed()
      await place.write(entry.stem, entry.suffix, entry.text ?? '')
      entry.onDisk = true
      this.log.over('disk')
      return true
    } catch (error) {
      this.#offDisk(entry)
      this.#diskFailed(error)
      return false
    } finally {
      this.writes.delete(write)
    }
  }

  /** Whether a write has not come back: more of them would take all threads that Node has for files and names. */
  #hangs () {
    const [first] = this.writes
    if (!first || performance.now() - first.since < HANGS) return false
    this.log.again('hangs', { level: 'error', event: 'outbox_hangs', message: 'the outbox\'s disk has not answered for some time: events wait in memory. Look at the disk, or the network behind it' })
    return true
  }

  /** Keep it in memory, if there is room. @param {Entry} entry */
  #keep (entry) {
    if (this.inMemory >= IN_MEMORY) return false
    this.inMemory += 1
    return true
  }

  /** @param {Entry} entry */
  #offer (entry) {
    this.ready[entry.lane].set(entry.stem, entry)
    this.wake()
  }

  /** @param {Entry} entry */
  #offDisk (entry) {
    entry.onDisk = false
    this.onDisk.events -= 1
    this.onDisk.bytes -= entry.size
  }

  /** @param {Entry} entry */
  #offMemoryOrDisk (entry) {
    if (entry.onDisk) this.#offDisk(entry)
    else this.inMemory -= 1
  }

  /** @param {Entry} entry */
  async #drop (entry) {
    const { onDisk, suffix } = entry
    this.#offMemoryOrDisk(entry)
    entry.state = 'gone'
    entry.text = undefined
    if (onDisk) await this.#unlink(entry.stem + suffix)
  }

  /** @param {string} name */
  async #unlink (name) {
    await unlink(join(this.place?.path ?? '', name)).catch((error) => { if (codeOf(error) !== 'ENOENT') this.#diskFailed(error) })
  }

  /** @param {Entry} entry */
  #lose (entry) {
    const { event } = JSON.parse(entry.text ?? '{}')
    entry.state = 'gone'
    this.counts.lost += 1
    this.log.again('lost', { level: 'error', event: 'event_lost', id: event?.id ?? 'unknown', lane: entry.lane, message: 'LOST: it was in memory alone, since the disk takes nothing' }, 1_000)
  }

  /** @param {unknown} error */
  #diskFailed (error) {
    this.badUntil = performance.now() + TRY_DISK_AGAIN
    this.log.again('disk', { level: 'error', event: 'outbox_unusable', message: `the outbox cannot be used (${codeOf(error) ?? /** @type {Error} */ (error).message}): events wait in memory. Look at the folder’s disk, owner and rights`, code: codeOf(error) })
  }
}
