/**
 * The sub-folder that a process claims in the outbox folder, and the takeover of the sub-folders of dead processes.
 *
 * Node has no file locks. Each process creates a sub-folder with a random name, which is never used again, and listens on a
 * Unix socket in it. The kernel closes the socket when the process ends for any reason: a refused connection proves that
 * the owner is dead, independent of pids and containers. The folder of a dead process is moved with one atomic rename into
 * the folder of the process that takes it over, so only one process succeeds. A folder's name ends with a digest of the
 * provider's issuer, because a process of another provider cannot look up its sessions.
 *
 * A socket only works on the machine of its owner, until that restarts: the owner file contains the boot id. If the boot id
 * differs or is unknown (only Linux has one), or if the socket gives no result, the heartbeat counts: the owner touches the
 * file `owner` every 10 s, and is considered dead when another process has seen the file unchanged for 90 s. If that owner was
 * only slow, it finds its folder gone and claims a new one.
 *
 * The events of a folder are published as if this provider had created them. Therefore a folder is taken over only if it is not
 * a link, belongs to our user, and is writable only for our user and for groups of this process. A file is read only if it
 * is regular and belongs to our user or root. Others may have write access to the outbox folder itself, and may replace a
 * sub-folder between two steps. Therefore a folder is checked once it is open, and again after it was moved into our
 * sub-folder. On Linux, its owner file and socket are used through the handle of the checked folder; on other systems, and
 * for all other files, the path is used.
 */
import { createHash, randomBytes } from 'node:crypto'
import { constants, existsSync, readFileSync } from 'node:fs'
import { lstat, lutimes, mkdir, open, readdir, rename, rmdir, unlink, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { dirname, join } from 'node:path'

const OWNER_FILE = 'owner'
const SOCKET_FILE = 'owner.sock'
const NEW_PREFIX = 'new-' // of a folder without a socket yet
const MAX_OWNER_BYTES = 4_096 // an owner file has about 70 bytes
const HEARTBEAT_MS = 10_000
const DEAD_AFTER_MS = 90_000
const ABANDONED_AFTER_MS = 3_600_000
const WRITES_WITH_O_SYNC = process.platform === 'linux' // saves a separate fsync, which would wait for a thread. On other systems O_SYNC is weaker than fsync
const CREATE_FILE_FLAGS = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | (WRITES_WITH_O_SYNC ? constants.O_SYNC : 0)

const HAS_PROC_SELF_FD = existsSync('/proc/self/fd') // Node has no openat(2)
const OPEN_FOLDER_FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const NOT_REGULAR_FILE_CODES = ['ELOOP', 'ENXIO', 'EISDIR'] // a link, a socket, a folder
const OPEN_FILE_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK // a FIFO without a writer would block

const GROUP_WRITE_BIT = 0o020
const OTHERS_WRITE_BIT = 0o002

/** A folder or file is not used: it is a link, not regular, too large, may have been written by another user, or contains unexpected files. */
export class RejectedFileError extends Error {}

/** @param {unknown} error */
export const codeOf = (error) => /** @type {NodeJS.ErrnoException} */ (error)?.code

function bootId () {
  try { return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() } catch { return undefined }
}

/** Make the created and renamed files of a folder durable. @param {string} path */
async function syncFolder (path) {
  const handle = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try { await handle.sync() } finally { await handle.close() }
}

export class OutboxFolder {
  /** @param {string} folder @param {string} name @param {import('node:fs/promises').FileHandle} handle @param {net.Server | undefined} server */
  constructor (folder, name, handle, server) {
    this.folder = folder
    this.name = name
    this.path = join(folder, name)
    this.handle = handle
    this.server = server
    this.lost = false
    this.isRemoved = false // if it is lost: whether it was removed rather than taken over
    this.touchedAt = Date.now()
    this.heartbeat = setInterval(() => this.#touchOwnerFile(), HEARTBEAT_MS).unref()
    /** @type {Promise<void> | undefined} */
    this.syncing = undefined
    /** @type {Promise<void> | undefined} */
    this.next = undefined
  }

  /** Create a sub-folder of `folder` for this process. @param {string} folder @param {string} [issuer] */
  static async claim (folder, issuer) {
    const made = await mkdir(folder, { recursive: true, mode: 0o700 })
    const whose = issuer === undefined ? '' : `-${createHash('sha256').update(issuer).digest('hex').slice(0, 12)}`
    const name = `${String(Date.now()).padStart(15, '0')}-${randomBytes(6).toString('hex')}${whose}`
    const unfinished = join(folder, NEW_PREFIX + name)
    await mkdir(unfinished, { mode: 0o700 })
    const handle = await openOwnFolder(unfinished)
    /** @type {net.Server | undefined} */
    let server
    try {
      server = await listenAt(pathInOpenFolder(handle, unfinished, SOCKET_FILE))
      await writeFile(pathInOpenFolder(handle, unfinished, OWNER_FILE), JSON.stringify({ boot: bootId(), socket: server !== undefined }), { mode: 0o600, flag: 'wx' })
      await rename(unfinished, join(folder, name)) // the prefix `new-` prevents a takeover before the socket exists
      for (const each of [folder, ...(made ? [dirname(made)] : [])]) await syncFolder(each)
    } catch (error) {
      server?.close()
      await removeUnfinishedFolder(handle, unfinished).catch(() => {})
      await handle.close().catch(() => {})
      throw error
    }
    return new OutboxFolder(folder, name, handle, server)
  }

  /** Write a file. It is renamed from `.part` to its name once it is complete and durable. @param {string} stem @param {string} suffix @param {string} text */
  async write (stem, suffix, text) {
    const part = join(this.path, `${stem}.part`)
    try {
      const file = await open(part, CREATE_FILE_FLAGS, 0o600)
      try {
        await file.writeFile(text)
        if (!WRITES_WITH_O_SYNC) await file.sync()
      } finally {
        file.close().catch(() => {}) // its content is already durable
      }
      await rename(part, join(this.path, stem + suffix))
    } catch (error) {
      await unlink(part).catch(() => {})
      await this.#onFileError(error)
      throw error
    }
    try {
      await this.sync()
    } catch (error) {
      await unlink(join(this.path, stem + suffix)).catch(() => {})
      throw error
    }
  }

  /** @param {string} from @param {string} to */
  async rename (from, to) {
    try {
      await rename(join(this.path, from), join(this.path, to))
    } catch (error) {
      await this.#onFileError(error)
      throw error
    }
  }

  /** Make created and renamed files durable. Concurrent calls share one fsync. @returns {Promise<void>} */
  sync () {
    if (!this.syncing) {
      this.syncing = this.handle.sync().finally(() => { this.syncing = undefined })
      return this.syncing
    }
    this.next ??= this.syncing.catch(() => {}).then(() => {
      this.next = undefined
      return this.sync()
    })
    return this.next
  }

  /** Mark the folder lost if it does not exist any more, or was replaced by another. */
  async markLostIfMissing () {
    try {
      const [found, own] = await Promise.all([lstat(this.path), this.handle.stat()])
      if (found.dev !== own.dev || found.ino !== own.ino) this.#markLost()
    } catch (error) {
      if (codeOf(error) === 'ENOENT') this.#markLost()
    }
  }

  /** Release the folder: other processes take over its events. */
  async release () {
    clearInterval(this.heartbeat)
    await unlink(join(this.path, OWNER_FILE)).catch(() => {})
    await new Promise((resolve) => { if (this.server) this.server.close(resolve); else resolve(undefined) })
    await unlink(join(this.path, SOCKET_FILE)).catch(() => {})
    await this.handle.close().catch(() => {})
    await rmdir(this.path).catch(() => writeFile(join(this.path, OWNER_FILE), '{"released":true}', { mode: 0o600, flag: 'wx' }).catch(() => {}))
  }

  #touchOwnerFile () {
    const now = new Date()
    lutimes(join(this.path, OWNER_FILE), now, now).then(() => { this.touchedAt = Date.now() }, (error) => { if (codeOf(error) === 'ENOENT') this.#markLost() })
  }

  /** After ENOENT, either the file or the whole folder is missing. @param {unknown} error */
  async #onFileError (error) {
    if (codeOf(error) === 'ENOENT') await this.markLostIfMissing()
  }

  #markLost () {
    if (this.lost) return
    this.lost = true
    this.isRemoved = Date.now() - this.touchedAt < DEAD_AFTER_MS // no process takes over a folder with a younger heartbeat
  }
}

/** Takes over the folders of dead processes. */
export class DeadProcessTakeover {
  /** @param {() => number} clock In milliseconds. */
  constructor (clock = () => performance.now()) {
    this.clock = clock
    /** @type {Map<string, {heartbeat: number, since: number}>} The last change of each owner file, and since when it is known. */
    this.watched = new Map()
  }

  /**
   * Move the files of dead processes, and files beside the sub-folders, into `place`. Calls `failed` for each entry that cannot be moved.
   * @param {OutboxFolder} place @param {(name: string, error: unknown) => void} failed @returns {Promise<string[]>} The names of the moved files.
   */
  async takeOver (place, failed) {
    /** @type {string[]} */
    const files = []
    for (const entry of await readdir(place.path, { withFileTypes: true })) { // from an interrupted takeover
      if (entry.isDirectory()) await moveFilesOut(join(place.path, entry.name), place.path, files).catch((error) => failed(entry.name, error))
    }
    const beside = await readdir(place.folder, { withFileTypes: true })
    for (const name of this.watched.keys()) if (!beside.some((entry) => entry.name === name)) this.watched.delete(name)
    for (const entry of beside) {
      try {
        if (entry.name !== place.name && await this.#takeOverEntry(place, entry, files)) this.watched.delete(entry.name)
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') failed(entry.name, error) // ENOENT: another process took it over first
      }
    }
    return files
  }

  /** Move an entry beside our sub-folder into it if it may be taken over; returns whether it was moved. @param {OutboxFolder} place @param {import('node:fs').Dirent} entry @param {string[]} files */
  async #takeOverEntry (place, entry, files) {
    const { name } = entry
    const path = join(place.folder, name)
    if (entry.isFile() && name.endsWith('.json')) {
      rejectForeignFile(await lstat(path))
      await rename(path, join(place.path, name))
      files.push(name)
      return true
    }
    if (!entry.isDirectory() && !entry.isSymbolicLink()) return false
    if (name.startsWith(NEW_PREFIX)) {
      await removeIfAbandoned(path)
      return false
    }
    if (!hasSameIssuer(name, place.name) || !await this.#isOwnerDead(path, name)) return false
    const taken = join(place.path, `taken-${name}`)
    await rename(path, taken)
    try {
      await (await openOwnFolder(taken)).close()
    } catch (error) { // the folder was replaced between the check and the rename
      await rename(taken, path).catch(() => {})
      throw error
    }
    await moveFilesOut(taken, place.path, files)
    return true
  }

  /** Whether the owner of a folder is dead. @param {string} path @param {string} name */
  async #isOwnerDead (path, name) {
    const handle = await openOwnFolder(path)
    try {
      const owner = await readOwnFile(pathInOpenFolder(handle, path, OWNER_FILE), MAX_OWNER_BYTES).then(JSON.parse).catch(() => undefined)
      if (owner?.released) return true
      if (owner?.socket && owner.boot && owner.boot === bootId()) {
        const answer = await probeSocket(pathInOpenFolder(handle, path, SOCKET_FILE))
        if (answer !== 'unknown') return answer === 'dead'
      }
      const { mtimeMs: heartbeat } = await lstat(pathInOpenFolder(handle, path, OWNER_FILE)).catch(() => handle.stat())
      return this.#watchHeartbeat(name, heartbeat)
    } finally {
      await handle.close()
    }
  }

  /** Watch a heartbeat; returns whether it has been unchanged for 90 s. @param {string} name @param {number} heartbeat */
  #watchHeartbeat (name, heartbeat) {
    const seen = this.watched.get(name)
    if (seen?.heartbeat === heartbeat) return this.clock() - seen.since >= DEAD_AFTER_MS
    this.watched.set(name, { heartbeat, since: this.clock() })
    return false
  }
}

/** Remove a folder whose process died before it had a socket, after an hour. @param {string} path */
async function removeIfAbandoned (path) {
  if (Date.now() - (await lstat(path)).mtimeMs <= ABANDONED_AFTER_MS) return
  const handle = await openOwnFolder(path)
  try { await removeUnfinishedFolder(handle, path) } finally { await handle.close() }
}

/** The path of a file in an open folder. On Linux it remains valid if the folder is renamed or replaced. @param {import('node:fs/promises').FileHandle} handle @param {string} path @param {string} name */
function pathInOpenFolder (handle, path, name) {
  return HAS_PROC_SELF_FD ? `/proc/self/fd/${handle.fd}/${name}` : join(path, name)
}

/** Open a folder that is not a link, belongs to our user, and is writable only for our user and for groups of this process; throws RejectedFileError. @param {string} path */
async function openOwnFolder (path) {
  rejectSharedFolder(await lstat(path))
  const handle = await open(path, OPEN_FOLDER_FLAGS)
  try {
    rejectSharedFolder(await handle.stat())
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** @param {import('node:fs').Stats} stats Of the folder to check. */
function rejectSharedFolder (stats) {
  if (stats.isSymbolicLink()) throw new RejectedFileError('it is a link. Remove it')
  if (stats.uid !== process.geteuid?.()) throw new RejectedFileError(`it belongs to another user (${stats.uid}), who may have written its events. Inspect them, then chown it, or remove it`)
  if (stats.mode & OTHERS_WRITE_BIT || (stats.mode & GROUP_WRITE_BIT && !ownGroups().includes(stats.gid))) throw new RejectedFileError(`others may write to it (mode ${(stats.mode & 0o777).toString(8)}, group ${stats.gid}) and may have written its events. Inspect them, then chmod 700 it, or remove it`)
}

/** The groups of this process, including a pod's `fsGroup`: Kubernetes makes volumes group-writable for it. */
function ownGroups () {
  return [process.getegid?.(), ...(process.getgroups?.() ?? [])]
}

/** @param {import('node:fs').Stats} stats Of a file. */
function rejectForeignFile (stats) {
  if (stats.uid !== process.geteuid?.() && stats.uid !== 0) throw new RejectedFileError(`the file belongs to another user (${stats.uid}). Inspect it, then chown it, or remove it`)
}

/** Read a regular file of at most `maxBytes` that belongs to our user or root; throws RejectedFileError. Does not wait at a FIFO. @param {string} path @param {number} [maxBytes] */
export async function readOwnFile (path, maxBytes = Infinity) {
  const handle = await open(path, OPEN_FILE_FLAGS).catch((error) => {
    throw NOT_REGULAR_FILE_CODES.includes(codeOf(error) ?? '') ? new RejectedFileError('it is not a regular file. Remove it') : error
  })
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw new RejectedFileError('it is not a regular file. Remove it')
    rejectForeignFile(stats)
    if (stats.size > maxBytes) throw new RejectedFileError(`it has ${stats.size} bytes, more than ${maxBytes}. Inspect it, or remove it`)
    return await handle.readFile('utf8')
  } finally {
    await handle.close()
  }
}

/** Remove an unfinished folder with its owner file and socket. Fails if it contains other files. @param {import('node:fs/promises').FileHandle} handle @param {string} path */
async function removeUnfinishedFolder (handle, path) {
  for (const name of [OWNER_FILE, SOCKET_FILE]) {
    await unlink(pathInOpenFolder(handle, path, name)).catch((error) => { if (codeOf(error) !== 'ENOENT') throw error })
  }
  await rmdir(path).catch((error) => {
    throw codeOf(error) === 'ENOTEMPTY' ? new RejectedFileError('it contains unexpected files. Inspect them, then remove it') : error
  })
}

/** Whether both folders belong to providers with the same issuer. @param {string} name @param {string} ours */
function hasSameIssuer (name, ours) {
  return name.split('-')[2] === ours.split('-')[2]
}

/** Move the files of a folder that was taken over, including its folders; throws RejectedFileError. @param {string} from @param {string} to @param {string[]} files */
async function moveFilesOut (from, to, files) {
  await (await openOwnFolder(from)).close() // the folder may have been replaced between the check and the rename
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const path = join(from, entry.name)
    if (entry.isDirectory()) await moveFilesOut(path, to, files)
    else if (entry.name.endsWith('.part') || entry.name === OWNER_FILE || entry.name === SOCKET_FILE) await unlink(path)
    else {
      const name = entry.name === SESSIONS_FILE ? `${entry.name}-${randomBytes(6).toString('hex')}` : entry.name
      await rename(path, join(to, name))
      files.push(name)
    }
  }
  await rmdir(from)
}

/** The file with the sessions that a process remembers until they expire. */
export const SESSIONS_FILE = 'sessions.jsonl'

/** @param {string} path @returns {Promise<net.Server | undefined>} */
function listenAt (path) {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => socket.destroy())
    server.once('error', () => resolve(undefined)) // a file system without sockets
    server.listen({ path, exclusive: true }, () => resolve(server.unref())) // without `exclusive`, a cluster's primary process would own the socket and keep it open after this worker dies
  })
}

/** Probe the owner's socket: the kernel refuses connections to a dead process. @param {string} path @returns {Promise<'alive' | 'dead' | 'unknown'>} */
function probeSocket (path) {
  return new Promise((resolve) => {
    const socket = net.connect({ path })
    socket.once('connect', () => { socket.destroy(); resolve('alive') })
    socket.once('error', (error) => resolve(codeOf(error) === 'ECONNREFUSED' ? 'dead' : codeOf(error) === 'EAGAIN' ? 'alive' : 'unknown'))
  })
}
