/**
 * Holds the events that are not published yet: each in a file, or in memory if the disk fails or is full.
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
import { RejectedFileError, SESSIONS_FILE, codeOf } from './outbox_folder.js'

/** @typedef {import('./outbox_entry.js').Lane} Lane */

const MAX_EVENTS_IN_MEMORY = 10_000
const BULK_SHARE = 0.9 // of the limits of files and bytes; the rest is reserved for sign-outs
const DISK_RETRY_INTERVAL_MS = 30_000
const TAKEOVER_INTERVAL_MS = 60_000
const BATCH_SIZE = 64
const NOT_WRITTEN = 'it could not be written to the outbox (see outbox_full, outbox_unusable, outbox_hangs)'
const MAX_LISTED_FILES = 10

export class Outbox {
  /** @param {Pick<import('./settings.js').Settings, 'outbox' | 'limits'>} settings @param {import('./logger.js').Logger} log @param {() => void} wake Called when an event is ready. @param {string} [issuer] The issuer of the sessions. */
  constructor (settings, log, wake, issuer) {
    this.limits = settings.outbox
    this.log = log
    this.wake = wake
    this.disk = new OutboxDisk(settings.outbox, settings.limits.signOut, log, (isRemoved) => this.#onFolderLost(isRemoved), issuer)
    this.counts = { written: 0, lost: 0, refused: 0, expired: 0 }
    /** @type {Record<Lane, Map<string, OutboxEntry>>} Events to publish, in the order in which they became ready; those of earlier processes by age. */
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
    this.closed = false
    /** @type {(path: string) => Promise<void>} Called for each file with remembered sessions (see JournaledExpiryStore) that is taken over. Deletes it by default. */
    this.onSessionsFound = unlink
    this.timers = [
      setInterval(() => this.writeMemoryToDisk().catch((error) => this.disk.onFailure(error)), DISK_RETRY_INTERVAL_MS).unref(),
      setInterval(() => { this.#requeuePostponed(); this.takeOver() }, TAKEOVER_INTERVAL_MS).unref()
    ]
  }

  get eventCount () { return this.ready.events.size + this.ready.bulk.size + this.pending.size + this.postponed.size }

  /** When the oldest ready event was created; undefined if there is none. Postponed events do not count. */
  get oldestReadyWrittenAt () {
    let oldest
    for (const lane of LANES) for (const { since } of this.ready[lane].values()) if (oldest === undefined || since < oldest) oldest = since
    return oldest
  }

  /**
   * Store an event. Resolves once it is on disk, in memory or lost. The log has the cause if it is not on disk.
   * @param {Lane} lane @param {import('./outbox_entry.js').SessionKey | undefined} session Undefined if the event is ready at once.
   * @param {import('./event_builder.js').SessionEnded} event
   */
  async add (lane, session, event) {
    const text = JSON.stringify({ lane, session: session ?? null, event })
    const entry = new OutboxEntry(this.#createStem(lane), lane, Buffer.byteLength(text), text)
    if (!session) entry.state = 'ready'
    if (!await this.#writeOrKeepInMemory(entry)) {
      this.#recordLoss(entry, event.id, `${NOT_WRITTEN}, and memory is full (10000 events, 5000 for mass logouts). Repair the broker or the disk`)
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
      if (!entry.text || !this.#reserveMemory(entry)) {
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

  /** Up to `count` ready events, the next first. They stay in the outbox. @param {Lane} lane @param {number} count @param {(entry: OutboxEntry) => boolean} [filter] */
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

  /** Exclude an event from `peekReady` until the postponed events are queued again, every 60 s. @param {OutboxEntry} entry */
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

  /** Handle a failed read: postpone the event, or forget it if its file is missing. It is lost then, unless another process may have taken over the folder. @param {OutboxEntry} entry @param {unknown} error */
  onUnreadable (entry, error) {
    if (this.closed || entry.state === 'gone' || !entry.onDisk) return // its folder was released or lost during the read
    if (codeOf(error) === 'ENOENT') return this.#onFileMissing(entry)
    if (entry.state === 'ready') this.postpone(entry)
    this.log.limited('unreadable', { level: 'error', event: 'event_unreadable', lane: entry.lane, file: entry.file, message: `an event in the outbox cannot be read (${codeOf(error)}): the others are published, and its file is read again every minute. Check the disk, owner and permissions` })
  }

  /** Set aside an event for inspection: its file is moved, or written if the event is only in memory. @param {OutboxEntry} entry @param {'refused' | 'expired'} suffix @param {string} why @param {string} [id] */
  async setAside (entry, suffix, why, id = 'unknown') {
    const file = `${entry.stem}.${suffix}`
    const { file: from, text = '' } = entry
    this.#removeFromQueues(entry)
    this.counts[suffix] += 1
    let result = `set aside as ${file} in the outbox folder`
    if (entry.writing) {
      entry.asideFile = file
      result = `it is ${result} once the disk responds`
    } else if (entry.onDisk) {
      if (!await this.disk.setAside(from, file)) result = `its file ${from} cannot be ${result}, which is tried again after a restart`
    } else if (!await this.disk.writeAside(entry.stem, text, file)) {
      result = `it was only in memory and cannot be ${result} (see outbox_unusable, outbox_hangs), so it is no longer kept`
    }
    this.log.log({ level: 'error', event: `event_${suffix}`, id, lane: entry.lane, file, message: `${result}: ${why}` })
    this.#forget(entry)
  }

  /** Write the events that are only in memory to disk, up to its limits. */
  async writeMemoryToDisk () {
    this.disk.endPause()
    const entries = this.#allEntries().filter(({ onDisk, writing }) => !onDisk && !writing)
    entries.sort((one, other) => one.stem < other.stem ? -1 : 1)
    for (const lane of LANES) {
      const ofLane = entries.filter((entry) => entry.lane === lane)
      for (let at = 0; at < ofLane.length; at += BATCH_SIZE) {
        const written = await Promise.all(ofLane.slice(at, at + BATCH_SIZE).map((entry) => this.#writeEntryToDisk(entry)))
        if (written.includes(false)) break
      }
    }
  }

  /** Write an entry that is only in memory to disk; returns whether it succeeded. @param {OutboxEntry} entry */
  async #writeEntryToDisk (entry) {
    if (entry.state === 'gone' || entry.onDisk || entry.writing) return true
    const { file } = entry
    if (!await this.#write(entry)) {
      this.#onLateFailure(entry)
      return false
    }
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
        if (!(error instanceof RejectedFileError)) throw error
        return this.disk.setAside(name, `${name}.refused`)
      })
      const found = names.filter((name) => !name.startsWith(SESSIONS_FILE))
      for (let at = 0; at < found.length; at += BATCH_SIZE) await Promise.all(found.slice(at, at + BATCH_SIZE).map((name) => this.#addTakenOverFile(name)))
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
    this.closed = true
    for (const timer of this.timers) clearInterval(timer)
    await this.disk.waitForWrites()
    if (this.inMemory) await this.writeMemoryToDisk()
    for (const entry of this.#allEntries()) if (!entry.onDisk) this.#recordLoss(entry, parseContent(entry.text ?? '').event.id, `it was only in memory, ${NOT_WRITTEN}, and the process ends`)
    await this.disk.release()
  }

  /** @param {string} name */
  async #addTakenOverFile (name) {
    const [, stem = '', suffix] = /^(.*)\.(json|pending)$/.exec(name) ?? []
    if (!suffix) return this.disk.setAside(name, `${name}.refused`) // not a file of an outbox
    const entry = new OutboxEntry(stem, stem.endsWith('-bulk') ? 'bulk' : 'events', await this.disk.size(name))
    entry.onDisk = true
    this.disk.addToTotals(1, entry.size)
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

  /** Keep the events of the lost sub-folder in memory if their content is there. Otherwise another process publishes them, or they are lost. @param {boolean} isRemoved Whether no other process has taken over the sub-folder. */
  #onFolderLost (isRemoved) {
    const lost = []
    for (const entry of this.#allEntries()) {
      if (!entry.onDisk) continue
      if (entry.text && this.#reserveMemory(entry)) this.#markOffDisk(entry)
      else {
        this.#removeFromQueues(entry)
        lost.push(entry.file)
        this.#forget(entry)
      }
    }
    if (!isRemoved || !lost.length) return
    this.counts.lost += lost.length
    this.log.log({ level: 'error', event: 'event_lost', count: lost.length, files: lost.slice(0, MAX_LISTED_FILES), message: `LOST, no client is notified of these ${lost.length} sign-outs: the files were removed with the sub-folder of this process` })
  }

  /** Forget an event whose file is missing. It is lost, unless another process took over the folder. @param {OutboxEntry} entry */
  #onFileMissing (entry) {
    const { file } = entry
    this.#removeFromQueues(entry)
    this.#forget(entry)
    if (!this.disk.isTakenOver) this.#recordLoss(entry, 'unknown', 'its file was removed from the outbox', file)
  }

  /** @param {OutboxEntry} entry */
  #removeFromQueues (entry) {
    this.ready[entry.lane].delete(entry.stem)
    this.pending.delete(entry)
    this.postponed.delete(entry)
  }

  /** Write an entry to disk or keep it in memory; returns whether it succeeded. @param {OutboxEntry} entry */
  async #writeOrKeepInMemory (entry) {
    const { file } = entry
    const writing = this.#write(entry)
    for (;;) {
      const written = await withTimeout(writing, this.disk.timeoutMs, 'late').catch(() => undefined)
      if (written !== undefined) return (entry.onDisk = written) || this.#reserveMemory(entry)
      if (this.disk.isHanging() && this.#reserveMemory(entry)) {
        writing.then((isWritten) => isWritten ? this.#onWritten(entry, file) : this.#onLateFailure(entry)).catch((error) => this.disk.onFailure(error))
        return true
      }
    }
  }

  /** Write an entry to disk; returns whether it succeeded. @param {OutboxEntry} entry */
  async #write (entry) {
    entry.writing = true
    try {
      return await this.disk.write(entry.stem, entry.state === 'ready' ? '.json' : '.pending', entry.text ?? '', entry.size, entry.lane === 'bulk' ? BULK_SHARE : 1)
    } finally {
      entry.writing = false
    }
  }

  /** Record that an event in memory was written to this file. Rename, move or delete the file if the event's state changed during the write. @param {OutboxEntry} entry @param {string} file */
  async #onWritten (entry, file) {
    if (entry.state === 'gone') {
      this.disk.addToTotals(-1, -entry.size)
      await (entry.asideFile ? this.disk.setAside(file, entry.asideFile) : this.disk.remove(file))
      return
    }
    entry.onDisk = true
    this.inMemory -= 1
    if (entry.file !== file) await this.disk.rename(file, entry.file)
    if (entry.state === 'ready') entry.text = undefined
  }

  /** Log that an event was not set aside, because the write in progress failed. @param {OutboxEntry} entry */
  #onLateFailure ({ asideFile, lane }) {
    if (asideFile) this.log.log({ level: 'error', event: asideFile.endsWith('.refused') ? 'event_refused' : 'event_expired', lane, file: asideFile, message: `it was only in memory and cannot be set aside as ${asideFile} (see outbox_unusable), so it is no longer kept` })
  }

  /** Count an entry as kept in memory; returns whether the limit permits it. @param {OutboxEntry} entry */
  #reserveMemory (entry) {
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
    this.disk.addToTotals(-1, -entry.size)
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

  /** @param {OutboxEntry} entry @param {string} id @param {string} why @param {string} [file] */
  #recordLoss (entry, id, why, file) {
    entry.state = 'gone'
    this.counts.lost += 1
    this.log.limited('lost', { level: 'error', event: 'event_lost', id, lane: entry.lane, ...(file && { file }), message: `LOST, no client is notified of this sign-out: ${why}` }, 1_000)
  }
}
