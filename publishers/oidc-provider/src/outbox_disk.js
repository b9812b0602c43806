/**
 * The outbox's files: within its limits, in this process's sub-folder, and no writes while the disk is known to fail.
 *
 * After a failed write the disk is not used for 30 s, because each sign-out would wait for it. If none of the writes in
 * progress completes for as long as a sign-out may wait, the disk counts as hanging, and no further write is started.
 */
import { lstat, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { InvalidEventError } from './outbox_entry.js'
import { withTimeout } from './publish_failure.js'
import { Takeover, ForeignFileError, OutboxFolder, codeOf, readOwnFile } from './outbox_folder.js'

const RETRY_AFTER = 30_000
const LOOKS = 4
const POLL = 20
const RELEASE_TIMEOUT = 2_000
const MAX_FILE_BYTES = 1_048_576 // bytes; an event has 128 KiB
const BATCH_SIZE = 3 // of the four threads that Node has for files, names and keys: the fourth stays free if the disk hangs

export class OutboxDisk {
  /** @param {{folder: string, maxEvents: number, maxBytes: number}} limits @param {number} patience Milliseconds after which a write hangs. @param {import('./logger.js').Logger} log @param {() => void} lost Called when the sub-folder is another now. @param {string} [issuer] */
  constructor (limits, patience, log, lost, issuer) {
    this.limits = limits
    this.patience = patience
    this.log = log
    this.lost = lost
    this.issuer = issuer
    this.events = 0
    this.bytes = 0
    this.unusableUntil = 0
    this.writes = 0
    this.still = 0
    this.watch = setInterval(() => { if (this.writes) this.still += 1 }, patience / LOOKS).unref() // counted, as a loop that was busy for long saw no answer either
    /** @type {(() => void)[]} Wait for their turn. */
    this.queue = []
    this.takeover = new Takeover()
    /** @type {OutboxFolder | undefined} */
    this.place = undefined
    /** @type {Promise<OutboxFolder> | undefined} */
    this.claiming = undefined
  }

  /** Whether it is durable now. @param {string} stem @param {string} suffix @param {string} text @param {number} size @param {number} share Of the limits. */
  async write (stem, suffix, text, size, share = 1) {
    if (this.hangs() || this.#isFull(size, share)) return false
    this.count(1, size)
    while (this.writes >= BATCH_SIZE) await /** @type {Promise<void>} */ (new Promise((resolve) => this.queue.push(resolve)))
    if (performance.now() < this.unusableUntil) {
      this.count(-1, -size)
      this.queue.shift()?.()
      return false
    }
    if (!this.writes++) this.still = 0
    try {
      await (await this.claimed()).write(stem, suffix, text)
      this.log.reset('disk')
      return true
    } catch (error) {
      this.count(-1, -size)
      this.failed(error)
      return false
    } finally {
      this.writes -= 1
      this.still = 0
      this.queue.shift()?.()
    }
  }

  /** So many events and bytes more. @param {number} events @param {number} bytes */
  count (events, bytes) {
    this.events += events
    this.bytes += bytes
  }

  /** Read a file; throws InvalidEventError if another user may have written it. @param {string} name */
  read (name) {
    return readOwnFile(this.#path(name), MAX_FILE_BYTES).catch((error) => { throw error instanceof ForeignFileError ? new InvalidEventError(error.message) : error })
  }

  /** The size of a file that came by a take-over; 0 if it is gone. @param {string} name */
  size (name) { return lstat(this.#path(name)).then(({ size }) => size, () => 0) }

  /** Whether it could be renamed. @param {string} from @param {string} to */
  async rename (from, to) {
    try {
      await this.place?.rename(from, to)
      return true
    } catch (error) {
      this.failed(error)
      return false
    }
  }

  /** @param {string} name */
  async remove (name) {
    await unlink(this.#path(name)).catch((error) => { if (codeOf(error) !== 'ENOENT') this.failed(error) })
  }

  /** Move a file into the outbox folder itself, for inspection. @param {string} name @param {string} to */
  async setAside (name, to) {
    await rename(this.#path(name), join(this.limits.folder, to)).catch((error) => this.failed(error))
  }

  /** Use the disk again after a failure. */
  retry () { this.unusableUntil = 0 }

  /** @param {unknown} error */
  failed (error) {
    const code = codeOf(error)
    this.unusableUntil = performance.now() + RETRY_AFTER
    this.log.limited('disk', { level: 'error', event: 'outbox_unusable', code, message: `the outbox cannot be used (${code ?? /** @type {Error} */ (error).message}): events wait in memory. Check the folder's disk, owner and rights` })
  }

  /** Move the files of dead processes into this sub-folder. Returns their names. */
  async takeOver () {
    return this.takeover.takeOver(await this.claimed(), (name, error) => this.log.limited(`left ${name}`, {
      level: 'error',
      event: 'not_taken_over',
      message: error instanceof ForeignFileError
        ? `${name} in outbox.folder is not taken over: ${error.message}`
        : `the events of an ended process in ${name} cannot be taken over (${codeOf(error)}): all processes must run as one user`
    }))
  }

  /** The sub-folder of this process; a new one if it was lost. @returns {Promise<OutboxFolder>} */
  async claimed () {
    if (this.place && !this.place.lost) return this.place
    this.claiming ??= this.#claim().finally(() => { this.claiming = undefined })
    return this.claiming
  }

  /** Wait for all writes, unless the disk hangs. */
  async idle () {
    while (this.writes && !this.hangs()) await new Promise((resolve) => setTimeout(resolve, POLL)) // holds the process
  }

  /** Let other processes take over the remaining events. Later sign-outs are published after the next start. */
  async release () {
    clearInterval(this.watch)
    await this.claiming?.catch(() => {})
    const { place } = this
    this.place = undefined
    await withTimeout(Promise.resolve(place?.release()), RELEASE_TIMEOUT, 'the disk does not answer').catch(() => {})
  }

  async #claim () {
    const before = this.place
    const place = this.place = await OutboxFolder.claim(this.limits.folder, this.issuer)
    if (before) {
      this.log.log({ level: 'error', event: 'outbox_folder_lost', message: 'the sub-folder of this process was removed, or taken over by a process on another machine; a new sub-folder is in use' })
      await before.release()
      this.lost()
    }
    return place
  }

  /** Whether the disk does not respond. A busy disk does. */
  hangs () {
    if (this.still < LOOKS) return false
    this.log.limited('hangs', { level: 'error', event: 'outbox_hangs', message: 'the outbox\'s disk has not answered for some time: events wait in memory. Check the disk, or its network' })
    return true
  }

  /** @param {string} name */
  #path (name) { return join(this.place?.path ?? '', name) }

  /** @param {number} size @param {number} share */
  #isFull (size, share) {
    if (this.events < share * this.limits.maxEvents && this.bytes + size <= share * this.limits.maxBytes) return false
    this.log.limited('full', { level: 'error', event: 'outbox_full', message: `the outbox holds ${this.events} events in ${this.bytes} bytes, its limit: events wait in memory. Repair the broker, or raise outbox.maxEvents or outbox.maxBytes` })
    return true
  }
}
