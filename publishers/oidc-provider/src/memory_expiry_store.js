/**
 * Remembers sessions in memory, and in a file of the outbox folder, so that they survive a restart.
 *
 * The file is a journal: changes are appended at most 250 ms later, and it is rewritten when most of it is outdated. A
 * killed process loses the last 250 ms.
 */
import { constants } from 'node:fs'
import { appendFile, open, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { SESSIONS_FILE, readOwnFile } from './outbox_folder.js'

/** @typedef {import('../index.d.ts').RememberedSession} RememberedSession */

const SOON = 250
const LATER = 10_000
const OUTDATED = 1_000
const APPEND = constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** @typedef {import('../index.d.ts').ExpiryStore} ExpiryStore */

/** @implements {ExpiryStore} */
export class MemoryExpiryStore {
  /** @param {number} most @param {() => string | undefined} folder The sub-folder, once it is claimed. @param {import('./logger.js').Logger} log */
  constructor (most, folder, log) {
    this.most = most
    this.folder = folder
    this.log = log
    /** @type {Map<string, RememberedSession>} */
    this.sessions = new Map()
    /** @type {string[]} */
    this.lines = []
    this.written = 0
    this.writtenTo = ''
    /** @type {NodeJS.Timeout | undefined} */
    this.timer = undefined
    /** @type {Promise<void>} */
    this.writing = Promise.resolve()
  }

  /** @param {string} uid @param {RememberedSession} session */
  put (uid, session) {
    if (this.sessions.size >= this.most && !this.sessions.has(uid)) {
      this.log.limited('sessions', { level: 'error', event: 'session_not_remembered', message: `${this.most} sessions are remembered, which is the limit: further sessions are not published when they expire. Raise expiry.maxSessions, or keep them in Redis` })
      return
    }
    this.sessions.set(uid, session)
    this.#note(session)
  }

  /** @param {number} now @param {number} limit */
  due (now, limit) {
    const due = []
    for (const session of this.sessions.values()) {
      if (session.exp <= now && due.push(session) === limit) break
    }
    return due
  }

  /** @param {string} uid */
  remove (uid) {
    if (this.sessions.delete(uid)) this.#note({ uid })
  }

  /** Restore the sessions that a dead process remembered. @param {string} path */
  async inherit (path) {
    /** @type {Map<string, RememberedSession>} The last line of each: two saves within one second have the same `exp`. */
    const last = new Map()
    for (const line of (await readOwnFile(path)).split('\n')) {
      /** @type {RememberedSession} */
      let session
      try { session = JSON.parse(line) } catch { continue } // the last line of a process that was killed
      if (typeof session?.uid === 'string') last.set(session.uid, session)
    }
    for (const session of last.values()) {
      const known = this.sessions.get(session.uid)
      if (session.exp === undefined) this.remove(session.uid)
      else if (!known || known.exp < session.exp) this.put(session.uid, session)
    }
    if (await this.flush()) await unlink(path)
  }

  /** Write the changes. Whether this succeeded. */
  async flush () {
    clearTimeout(this.timer)
    this.timer = undefined
    let fine = false
    this.writing = this.writing.then(async () => { fine = await this.#write() })
    await this.writing
    if (!fine) this.timer ??= setTimeout(() => this.flush(), LATER).unref()
    return fine
  }

  /** @param {Partial<RememberedSession>} line */
  #note (line) {
    this.lines.push(JSON.stringify(line))
    this.timer ??= setTimeout(() => this.flush(), SOON).unref()
  }

  async #write () {
    const folder = this.folder()
    const lines = this.lines.splice(0)
    if (folder === undefined) {
      this.writtenTo = ''
      return false
    }
    const path = join(folder, SESSIONS_FILE)
    try {
      if (folder !== this.writtenTo || this.written > 2 * this.sessions.size + OUTDATED) {
        const all = [...this.sessions.values()].map((session) => JSON.stringify(session) + '\n')
        await unlink(`${path}.part`).catch(() => {})
        const file = await open(`${path}.part`, 'wx', 0o600)
        try {
          await file.writeFile(all.join(''))
          await file.sync()
        } finally {
          await file.close()
        }
        await rename(`${path}.part`, path)
        this.written = all.length
        this.writtenTo = folder
      } else {
        await appendFile(path, lines.map((line) => line + '\n').join(''), { flag: APPEND })
        this.written += lines.length
      }
      return true
    } catch (error) {
      this.writtenTo = '' // rewrite the whole file
      this.log.limited('memory', { level: 'error', event: 'sessions_not_written', message: `remembered sessions cannot be written to the outbox folder, and are forgotten at a restart: ${/** @type {NodeJS.ErrnoException} */ (error).code}` })
      return false
    }
  }
}
