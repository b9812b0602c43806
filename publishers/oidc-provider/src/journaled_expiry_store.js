/**
 * Remembers sessions in memory and in a file of the outbox folder, so that they survive a restart.
 *
 * The file is a journal: each change is appended within 250 ms, and the file is rewritten when most of it is outdated. A
 * killed process loses the changes of the last 250 ms.
 */
import { constants } from 'node:fs'
import { appendFile, open, rename, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { SESSIONS_FILE, readOwnFile } from './outbox_folder.js'

/** @typedef {import('../index.d.ts').RememberedSession} RememberedSession */

const FLUSH_DELAY_MS = 250
const RETRY_DELAY_MS = 10_000
const MAX_OUTDATED_LINES = 1_000
const APPEND_FLAGS = constants.O_WRONLY | constants.O_APPEND | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** @typedef {import('../index.d.ts').ExpiryStore} ExpiryStore */

/** @implements {ExpiryStore} */
export class JournaledExpiryStore {
  /** @param {number} maxSessions @param {() => string | undefined} folder The sub-folder, once it is claimed. @param {import('./logger.js').Logger} log */
  constructor (maxSessions, folder, log) {
    this.maxSessions = maxSessions
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
    if (this.sessions.size >= this.maxSessions && !this.sessions.has(uid)) {
      this.log.limited('sessions', { level: 'error', event: 'session_not_remembered', message: `the limit of ${this.maxSessions} remembered sessions is reached: further sessions are not published when they expire. Raise expiry.maxSessions, or keep them in Redis` })
      return
    }
    this.sessions.set(uid, session)
    this.#appendLine(session)
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
    if (this.sessions.delete(uid)) this.#appendLine({ uid })
  }

  /** Take over the sessions file of a dead process. @param {string} path */
  async takeOver (path) {
    /** @type {Map<string, RememberedSession>} The last line of each session: two saves within one second have the same `exp`. */
    const last = new Map()
    for (const line of (await readOwnFile(path)).split('\n')) {
      /** @type {RememberedSession} */
      let session
      try { session = JSON.parse(line) } catch { continue } // the incomplete last line of a killed process
      if (typeof session?.uid === 'string') last.set(session.uid, session)
    }
    for (const session of last.values()) {
      const known = this.sessions.get(session.uid)
      if (session.exp === undefined) this.remove(session.uid)
      else if (!known || known.exp < session.exp) this.put(session.uid, session)
    }
    if (await this.flush()) await unlink(path)
  }

  /** Write the changes; returns whether it succeeded. */
  async flush () {
    clearTimeout(this.timer)
    this.timer = undefined
    let isWritten = false
    this.writing = this.writing.then(async () => { isWritten = await this.#write() })
    await this.writing
    if (!isWritten) this.timer ??= setTimeout(() => this.flush(), RETRY_DELAY_MS).unref()
    return isWritten
  }

  /** @param {Partial<RememberedSession>} line */
  #appendLine (line) {
    this.lines.push(JSON.stringify(line))
    this.timer ??= setTimeout(() => this.flush(), FLUSH_DELAY_MS).unref()
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
      if (folder !== this.writtenTo || this.written > 2 * this.sessions.size + MAX_OUTDATED_LINES) {
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
        await appendFile(path, lines.map((line) => line + '\n').join(''), { flag: APPEND_FLAGS })
        this.written += lines.length
      }
      return true
    } catch (error) {
      this.writtenTo = '' // rewrite the whole file
      this.log.limited('memory', { level: 'error', event: 'sessions_not_written', message: `remembered sessions cannot be written to the outbox folder, and are lost at a restart: ${/** @type {NodeJS.ErrnoException} */ (error).code}` })
      return false
    }
  }
}
