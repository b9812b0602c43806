/**
 * Reads and writes the outbox's files in the sub-folder of this process. Enforces the limits of the outbox.
 *
 * After a failure no event is written for up to 30 s, because each sign-out would wait for the disk. If no write in progress
 * completes within the time that a sign-out may wait, the disk is considered hanging, and no further write is started. Reads,
 * renames and deletions continue in both cases.
 */
import { lstat, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { InvalidEventError } from './outbox_entry.js'
import { withTimeout } from './publish_failure.js'
import { DeadProcessTakeover, RejectedFileError, OutboxFolder, codeOf, readOwnFile } from './outbox_folder.js'

const RETRY_AFTER_MS = 30_000
const STILL_CHECKS = 4
const POLL_INTERVAL_MS = 20
const RELEASE_TIMEOUT_MS = 2_000
const MAX_FILE_BYTES = 1_048_576 // an event has at most 128 KiB
const MAX_CONCURRENT_WRITES = 3 // Node has four threads for files, DNS and cryptography: writes of events leave one free. Other accesses to a hanging disk may still occupy it

/** The remedy for a failed access to a folder, by the error's code. @param {string | undefined} code */
function findRemedy (code) {
  if (code === 'EACCES' || code === 'EPERM') return 'Check the owner and permissions of outbox.folder: all processes must run as the same user'
  if (code === 'ENOSPC' || code === 'EDQUOT') return 'Free space on its disk'
  if (code === 'EROFS') return 'Its file system is read-only: mount it writable'
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'A file or folder is missing: check who removes files from outbox.folder'
  if (code === 'EMFILE' || code === 'ENFILE') return 'Raise the limit of open files'
  return 'Check its disk'
}

export class OutboxDisk {
  /** @param {{folder: string, maxEvents: number, maxBytes: number}} limits @param {number} timeoutMs Milliseconds after which a write hangs. @param {import('./logger.js').Logger} log @param {(isRemoved: boolean) => void} onLost Called when the sub-folder was lost and replaced. @param {string} [issuer] */
  constructor (limits, timeoutMs, log, onLost, issuer) {
    this.limits = limits
    this.timeoutMs = timeoutMs
    this.log = log
    this.onLost = onLost
    this.issuer = issuer
    this.events = 0
    this.bytes = 0
    this.unusableUntil = 0
    this.writes = 0
    this.stillCount = 0
    this.stillTimer = setInterval(() => { if (this.writes) this.stillCount += 1 }, timeoutMs / STILL_CHECKS).unref() // counts ticks rather than time, because a busy event loop delays the results of writes too
    /** @type {(() => void)[]} The writes that are not started yet. */
    this.queue = []
    this.takeover = new DeadProcessTakeover()
    /** @type {OutboxFolder | undefined} */
    this.place = undefined
    /** @type {Promise<OutboxFolder> | undefined} */
    this.claiming = undefined
  }

  /** Write a file; returns whether it is durable. @param {string} stem @param {string} suffix @param {string} text @param {number} size @param {number} share Of the limits that this event may use. */
  async write (stem, suffix, text, size, share = 1) {
    if (this.isHanging() || this.#isFull(size, share)) return false
    this.addToTotals(1, size)
    while (this.writes >= MAX_CONCURRENT_WRITES) await /** @type {Promise<void>} */ (new Promise((resolve) => this.queue.push(resolve)))
    if (performance.now() < this.unusableUntil) {
      this.addToTotals(-1, -size)
      this.queue.shift()?.()
      return false
    }
    if (!this.writes++) this.stillCount = 0
    try {
      await (await this.claimFolder()).write(stem, suffix, text)
      this.log.reset('disk')
      return true
    } catch (error) {
      this.addToTotals(-1, -size)
      this.onFailure(error)
      return false
    } finally {
      this.writes -= 1
      this.stillCount = 0
      this.queue.shift()?.()
    }
  }

  /** Add to the number of events and bytes on disk. @param {number} events @param {number} bytes */
  addToTotals (events, bytes) {
    this.events += events
    this.bytes += bytes
  }

  /** Read a file; throws InvalidEventError if another user may have written it. @param {string} name */
  async read (name) {
    const { place } = this
    try {
      return await readOwnFile(this.#path(name), MAX_FILE_BYTES)
    } catch (error) {
      if (codeOf(error) === 'ENOENT') await place?.markLostIfMissing()
      throw error instanceof RejectedFileError ? new InvalidEventError(error.message) : error
    }
  }

  /** Whether another process may have taken over the sub-folder of this process. */
  get isTakenOver () { return this.place?.lost === true && !this.place.isRemoved }

  /** The size of a file that was taken over; 0 if it is missing. @param {string} name */
  size (name) { return lstat(this.#path(name)).then(({ size }) => size, () => 0) }

  /** Rename a file; returns whether it succeeded. @param {string} from @param {string} to */
  async rename (from, to) {
    try {
      await this.place?.rename(from, to)
      return true
    } catch (error) {
      this.onFailure(error)
      return false
    }
  }

  /** @param {string} name */
  async remove (name) {
    await unlink(this.#path(name)).catch((error) => { if (codeOf(error) !== 'ENOENT') this.onFailure(error) })
  }

  /** Move a file into the outbox folder itself, for inspection; returns whether it succeeded. @param {string} name @param {string} to */
  setAside (name, to) {
    return rename(this.#path(name), join(this.limits.folder, to)).then(() => true, (error) => {
      this.onFailure(error)
      return false
    })
  }

  /** Write a file, and move it into the outbox folder itself; returns whether it succeeded. The limits of the outbox do not count it. @param {string} stem @param {string} text @param {string} to */
  async writeAside (stem, text, to) {
    if (this.isHanging()) return false
    try {
      const place = await this.claimFolder()
      await withTimeout(place.write(stem, '.json', text), this.timeoutMs, 'the disk does not respond')
      await rename(join(place.path, `${stem}.json`), join(this.limits.folder, to))
      return true
    } catch (error) {
      this.onFailure(error)
      return false
    }
  }

  /** Write events again before the 30 s after a failure are over. */
  endPause () { this.unusableUntil = 0 }

  /** @param {unknown} error */
  onFailure (error) {
    const code = codeOf(error)
    this.unusableUntil = performance.now() + RETRY_AFTER_MS
    this.log.limited('disk', { level: 'error', event: 'outbox_unusable', code, message: `the outbox cannot be used (${code ?? /** @type {Error} */ (error).message}): new events are kept in memory. ${findRemedy(code)}` })
  }

  /** Move the files of dead processes into this sub-folder. Returns their names. */
  async takeOver () {
    return this.takeover.takeOver(await this.claimFolder(), (name, error) => this.log.limited(`left ${name}`, {
      level: 'error',
      event: 'not_taken_over',
      message: error instanceof RejectedFileError
        ? `${name} in outbox.folder is not taken over: ${error.message}`
        : `the events of an ended process in ${name} cannot be taken over (${codeOf(error)}). ${findRemedy(codeOf(error))}`
    }))
  }

  /** Return the sub-folder of this process. Claims one if there is none, or if it was lost. @returns {Promise<OutboxFolder>} */
  async claimFolder () {
    if (this.place && !this.place.lost) return this.place
    this.claiming ??= this.#claim().finally(() => { this.claiming = undefined })
    return this.claiming
  }

  /** Wait for all writes, unless the disk hangs. */
  async waitForWrites () {
    while (this.writes && !this.isHanging()) await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL_MS)) // keeps the process running
  }

  /** Release the folder to other processes, within 2 s. A later event is written to a new folder, which is taken over after the end of this process. */
  async release () {
    clearInterval(this.stillTimer)
    await this.claiming?.catch(() => {})
    const { place } = this
    this.place = undefined
    await withTimeout(Promise.resolve(place?.release()), RELEASE_TIMEOUT_MS, 'the disk does not respond').catch(() => {})
  }

  async #claim () {
    const lostFolder = this.place
    const place = this.place = await OutboxFolder.claim(this.limits.folder, this.issuer)
    if (lostFolder) {
      this.log.log({ level: 'error', event: 'outbox_folder_lost', message: 'the sub-folder of this process was removed, or taken over by another process; a new sub-folder is in use' })
      await lostFolder.release()
      this.onLost(lostFolder.isRemoved)
    }
    return place
  }

  /** Whether no write in progress has completed within `timeoutMs`; logged. A disk that completes some writes is only slow. */
  isHanging () {
    if (this.stillCount < STILL_CHECKS) return false
    this.log.limited('hangs', { level: 'error', event: 'outbox_hangs', message: 'the outbox\'s disk does not respond: events are kept in memory. Check the disk or its network' })
    return true
  }

  /** @param {string} name */
  #path (name) { return join(this.place?.path ?? '', name) }

  /** Whether the limits leave no room for this event; logged. @param {number} size @param {number} share */
  #isFull (size, share) {
    if (this.events < share * this.limits.maxEvents && this.bytes + size <= share * this.limits.maxBytes) return false
    this.log.limited('full', { level: 'error', event: 'outbox_full', message: `the outbox holds ${this.events} events in ${this.bytes} bytes, its limit: events are kept in memory. Repair the broker, or raise outbox.maxEvents or outbox.maxBytes` })
    return true
  }
}
