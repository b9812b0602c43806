/**
 * Holds the pending events: each in a file, or in memory if the disk fails or is full.
 *
 * Suffixes of a file: `.part` (being written), `.pending` (its session may still exist), `.json` (ready to be published). Files
 * that are set aside are moved into the outbox folder itself as `.refused` or `.expired`. Names sort by time and contain the lane.
 */
import { randomBytes } from 'node:crypto'
import { unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { OutboxDisk } from './outbox_disk.js'
import { OutboxEntry, LANES, parseContent } from './outbox_entry.js'
import { withTimeout } from './publish_failure.js'
import { UntrustedFileError, SESSIONS_FILE } from './outbox_folder.js'

/** @typedef {import('./outbox_entry.js').Lane} Lane */

const MAX_EVENTS_IN_MEMORY = 10_000
const BULK_SHARE = 0.9 // of the limits of files and bytes; the rest is reserved for sign-outs
const DISK_RETRY_INTERVAL_MS = 30_000
const TAKEOVER_INTERVAL_MS = 60_000
const BATCH_SIZE = 64

export class Outbox {
  /** @param {Pick<import('./settings.js').Settings, 'outbox' | 'limits'>} settings @param {import('./logger.js').Logger} log @param {() => void} wake Called when an event is ready. @param {string} [issuer] The issuer of the sessions. */
  constructor (settings, log, wake, issuer) {
    this.limits = settings.outbox
    this.log = log
    this.wake = wake
    this.disk = new OutboxDisk(settings.outbox, settings.limits.signOut, log, () => { for (const entry of this.#allEntries()) if (entry.onDisk) this.#onFolderLost(entry) }, issuer)
    this.counts = { written: 0, lost: 0, refused: 0, expired: 0 }
    /** @type {Record<Lane, Map<string, OutboxEntry>>} Events to publish, oldest first. */
    this.ready = { events: new Map(), bulk: new Map() }
    /** @type {Set<OutboxEntry>} Events whose sessions may still exist. */
    this.pending = new Set()
    /** @type {Set<OutboxEntry>} Events whose files cannot be read at the moment. */
    this.postponed = new Set()
    this.inMemory = 0
    this.process = randomBytes(4).toString('hex')
    this.sequence = 0
    this.last = 0
    this.takingOver = false
    /** @type {(path: string) => Promise<void>} Called for each sessions file that is taken over. Deletes it by default. */
    this.onSessionsFound = unlink
    this.timers = [
      setInterval(() => this.persist().catch((error) => this.disk.onFailure(error)), DISK_RETRY_INTERVAL_MS).unref(),
      setInterval(() => { this.#requeuePostponed(); this.takeOver() }, TAKEOVER_INTERVAL_MS).unref()
    ]
  }

  get eventCount () { return this.ready.events.size + this.ready.bulk.size + this.pending.size + this.postponed.size }

  /** When the oldest event that is ready was written; undefined if there is none. */
  get oldestReadyAt () {
    const times = LANES.map((lane) => this.ready[lane].values().next().value?.since).filter((each) => each !== undefined)
    return times.length ? Math.min(...times) : undefined
  }

  /**
   * Store an event. Resolves once it is on disk, in memory or lost; the last two are logged.
   * @param {Lane} lane @param {import('./outbox_entry.js').SessionKey | undefined} session Undefined if the event is ready at once.
   * @param {import('./event_builder.js').SessionEnded} event
   */
  async add (lane, session, event) {
    const text = JSON.stringify({ lane, session: session ?? null, event })
    const entry = new OutboxEntry(this.#createStem(lane), lane, Buffer.byteLength(text), text)
    if (!session) entry.state = 'ready'
    if (!await this.#store(entry)) {
      this.#recordLoss(entry, event.id, 'the disk is not writable, and the memory limit is reached (10000 events, 5000 for mass logouts). Repair the broker or the disk')
      return entry
    }
    this.counts.written += 1
    if (entry.state === 'pending') this.pending.add(entry)
    else this.#addReady(entry)
    return entry
  }

  /** Mark the event ready, because its session has ended. @param {OutboxEntry} entry */
  async markReady (entry) {
    if (entry.state !== 'pending') return
    const before = entry.file
    entry.state = 'ready'
    if (entry.onDisk && !await this.disk.rename(before, entry.file)) { // no fsync: after a crash the session of a `.pending` event is looked up
      if (!entry.text || !this.#keepInMemory(entry)) {
        entry.state = 'pending' // it stays pending; the next lookup of its session decides
        return
      }
      this.#markOffDisk(entry)
    }
    this.pending.delete(entry)
    this.#addReady(entry)
  }

  /** Delete the event, because its session still exists. @param {OutboxEntry} entry */
  async discard (entry) {
    if (entry.state !== 'pending') return
    this.pending.delete(entry)
    await this.#deleteEntry(entry)
  }

  /** Up to `count` events that are ready, oldest first. They stay in the outbox. @param {Lane} lane @param {number} count @param {(entry: OutboxEntry) => boolean} [filter] */
  peekReady (lane, count, filter = () => true) {
    const entries = []
    for (const entry of this.ready[lane].values()) {
      if (filter(entry) && entries.push(entry) === count) break
    }
    return entries
  }

  /** Read and parse an event; throws InvalidEventError. @param {OutboxEntry} entry */
  async read (entry) {
    return parseContent(entry.text ?? await this.disk.read(entry.file))
  }

  /** Remove an event that was confirmed. @param {OutboxEntry} entry */
  async removePublished (entry) {
    this.ready[entry.lane].delete(entry.stem)
    await this.#deleteEntry(entry)
  }

  /** Exclude an event from `peekReady` until the next retry. @param {OutboxEntry} entry */
  postpone (entry) {
    this.ready[entry.lane].delete(entry.stem)
    this.postponed.add(entry)
  }

  /** Queue the postponed events again. */
  #requeuePostponed () {
    for (const entry of this.postponed) this.ready[entry.lane].set(entry.stem, entry)
    if (this.postponed.size) this.#sortReady()
    this.postponed.clear()
    this.wake()
  }

  #sortReady () {
    for (const lane of LANES) this.ready[lane] = new Map([...this.ready[lane]].sort(([one], [other]) => one < other ? -1 : 1))
  }

  /** Forget an event whose file is missing. @param {OutboxEntry} entry */
  forgetMissing (entry) {
    this.ready[entry.lane].delete(entry.stem)
    this.#forget(entry)
  }

  /** Set aside the file of an event for inspection. @param {OutboxEntry} entry @param {'refused' | 'expired'} suffix @param {string} why @param {string} [id] */
  async setAside (entry, suffix, why, id = 'unknown') {
    const file = `${entry.stem}.${suffix}`
    this.ready[entry.lane].delete(entry.stem)
    this.pending.delete(entry)
    this.counts[suffix] += 1
    this.log.log({ level: 'error', event: `event_${suffix}`, id, lane: entry.lane, file, message: `set aside as ${file} in the outbox folder: ${why}` })
    if (entry.onDisk) await this.disk.setAside(entry.file, file)
    this.#forget(entry)
  }

  /** Write the events that are only in memory to disk, up to its limits. */
  async persist () {
    this.disk.retry()
    const entries = this.#allEntries().filter(({ onDisk }) => !onDisk)
    entries.sort((one, other) => one.stem < other.stem ? -1 : 1)
    for (const lane of LANES) {
      const ofLane = entries.filter((entry) => entry.lane === lane)
      for (let at = 0; at < ofLane.length; at += BATCH_SIZE) {
        const written = await Promise.all(ofLane.slice(at, at + BATCH_SIZE).map((entry) => this.#persistEntry(entry)))
        if (written.includes(false)) break
      }
    }
  }

  /** Write an entry that is only in memory to disk; returns whether it succeeded. @param {OutboxEntry} entry */
  async #persistEntry (entry) {
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
      const { path } = await this.disk.claimFolder()
      for (const name of names) if (name.startsWith(SESSIONS_FILE)) await this.onSessionsFound(join(path, name)).catch((error) => {
        if (!(error instanceof UntrustedFileError)) throw error
        return this.disk.setAside(name, `${name}.refused`)
      })
      const found = names.filter((name) => !name.startsWith(SESSIONS_FILE))
      for (let at = 0; at < found.length; at += BATCH_SIZE) await Promise.all(found.slice(at, at + BATCH_SIZE).map((name) => this.#addFound(name)))
      if (!found.length) return
      this.#sortReady()
      this.log.log({ level: 'info', event: 'taken_over', message: 'took over events of an earlier process', count: found.length })
      this.wake()
    } catch (error) {
      this.disk.onFailure(error)
    } finally {
      this.takingOver = false
    }
  }

  /** Write the events in memory to disk, then release the folder to other processes. */
  async close () {
    for (const timer of this.timers) clearInterval(timer)
    await this.disk.waitForWrites()
    if (this.inMemory) await this.persist()
    for (const entry of this.#allEntries()) if (!entry.onDisk) this.#recordLoss(entry, parseContent(entry.text ?? '').event.id, 'it was only in memory, the disk is not writable, and the process ends')
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

  #allEntries () {
    return [...this.pending, ...this.postponed, ...this.ready.events.values(), ...this.ready.bulk.values()]
  }

  /** @param {Lane} lane */
  #createStem (lane) {
    this.last = Math.max(this.last, Date.now())
    this.sequence += 1
    return `${String(this.last).padStart(15, '0')}-${String(this.sequence).padStart(9, '0')}-${this.process}-${lane}`
  }

  /** Keep an event in memory after the loss of its folder. @param {OutboxEntry} entry */
  #onFolderLost (entry) {
    if (entry.text && this.#keepInMemory(entry)) this.#markOffDisk(entry)
    else {
      this.pending.delete(entry)
      this.forgetMissing(entry) // the process that took over the folder publishes it
    }
  }

  /** Write an entry to disk or keep it in memory; returns whether it succeeded. @param {OutboxEntry} entry */
  async #store (entry) {
    const { file } = entry
    const writing = this.#write(entry)
    for (;;) {
      const written = await withTimeout(writing, this.disk.timeoutMs, 'late').catch(() => undefined)
      if (written !== undefined) return (entry.onDisk = written) || this.#keepInMemory(entry)
      if (this.disk.isHanging() && this.#keepInMemory(entry)) {
        writing.then((late) => { if (late) return this.#onWritten(entry, file) }).catch((error) => this.disk.onFailure(error))
        return true
      }
    }
  }

  /** Write an entry to disk; returns whether it succeeded. @param {OutboxEntry} entry */
  #write (entry) {
    return this.disk.write(entry.stem, entry.state === 'ready' ? '.json' : '.pending', entry.text ?? '', entry.size, entry.lane === 'bulk' ? BULK_SHARE : 1)
  }

  /** Record that an event in memory was written to this file. Rename or delete the file if the event's state changed during the write. @param {OutboxEntry} entry @param {string} file */
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

  /** Count an entry as kept in memory; returns whether the memory limit permits it. @param {OutboxEntry} entry */
  #keepInMemory (entry) {
    if (this.inMemory >= (entry.lane === 'bulk' ? MAX_EVENTS_IN_MEMORY / 2 : MAX_EVENTS_IN_MEMORY)) return false // the other half is reserved for sign-outs
    this.inMemory += 1
    return true
  }

  /** @param {OutboxEntry} entry */
  #addReady (entry) {
    if (entry.onDisk) entry.text = undefined
    this.ready[entry.lane].set(entry.stem, entry)
    this.wake()
  }

  /** @param {OutboxEntry} entry */
  #markOffDisk (entry) {
    entry.onDisk = false
    this.disk.count(-1, -entry.size)
  }

  /** @param {OutboxEntry} entry */
  #forget (entry) {
    if (entry.onDisk) this.#markOffDisk(entry)
    else this.inMemory -= 1
    entry.state = 'gone'
    entry.text = undefined
  }

  /** @param {OutboxEntry} entry */
  async #deleteEntry (entry) {
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
