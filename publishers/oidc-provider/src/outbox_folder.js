/**
 * A sub-folder of the outbox that one process has claimed, and how it takes over what dead processes left.
 *
 * Node has no locks on files. A process makes a sub-folder with a new random name, in which a Unix socket listens, and
 * nobody ever claims it again. The kernel closes the socket when its process ends, however it ends: a refused connection
 * proves that the owner is dead, independent of pids and containers. A dead process's folder is moved into the own folder by
 * one rename: of several processes one succeeds. The name ends with a digest of the provider's issuer, since
 * another provider's process cannot look the sessions up.
 *
 * A socket answers only on its machine. If the owner ran on another (by the kernel's boot id), or the file system
 * has no sockets, its file `owner` counts, which it touches every 10 s: untouched for 90 s as we watch it, it is dead.
 * An owner that was merely slow then finds its folder gone, and claims another.
 *
 * What is found is published in the provider's name. So a folder that others may write to, or a link, is not taken over; nothing
 * in it is opened. The outbox folder itself may be open, so a name in it can be exchanged at any moment: a sub-folder is judged as
 * it is open, and used by its handle. A file counts if it is regular, and our user's or root's.
 */
import { createHash, randomBytes } from 'node:crypto'
import { constants, existsSync, readFileSync } from 'node:fs'
import { lstat, lutimes, mkdir, open, readdir, rename, rmdir, unlink, writeFile } from 'node:fs/promises'
import net from 'node:net'
import { dirname, join } from 'node:path'

const OWNER = 'owner'
const SOCKET = 'owner.sock'
const NEW_PREFIX = 'new-' // being made
const MAX_OWNER_BYTES = 4_096 // bytes; ours has 70
const HEARTBEAT_MS = 10_000
const DEAD_AFTER_MS = 90_000
const ABANDONED_MS = 3_600_000
const IS_WRITE_SYNCED = process.platform === 'linux' // a write is its own fsync: on a busy machine each step waits for a thread. Elsewhere O_SYNC promises less
const NEW = constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY | (IS_WRITE_SYNCED ? constants.O_SYNC : 0)

const BY_HANDLE = existsSync('/proc/self/fd') // Node has no openat(2)
const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const IRREGULAR = ['ELOOP', 'ENXIO', 'EISDIR'] // a link, a socket
const FILE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK // a FIFO without a writer would block

const GROUP_WRITES = 0o020
const ALL_WRITE = 0o002

/** Another user may have written the folder or file. */
export class ForeignFileError extends Error {}

/** @param {unknown} error */
export const codeOf = (error) => /** @type {NodeJS.ErrnoException} */ (error)?.code

function bootId () {
  try { return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim() } catch { return undefined }
}

/** Make the names in a folder durable. @param {string} path */
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
    this.heartbeat = setInterval(() => this.#touch(), HEARTBEAT_MS).unref()
    /** @type {Promise<void> | undefined} */
    this.syncing = undefined
    /** @type {Promise<void> | undefined} */
    this.next = undefined
  }

  /** Make a sub-folder of `folder`, ours alone. @param {string} folder @param {string} [issuer] */
  static async claim (folder, issuer) {
    const made = await mkdir(folder, { recursive: true, mode: 0o700 })
    const whose = issuer === undefined ? '' : `-${createHash('sha256').update(issuer).digest('hex').slice(0, 12)}`
    const name = `${String(Date.now()).padStart(15, '0')}-${randomBytes(6).toString('hex')}${whose}`
    const fresh = join(folder, NEW_PREFIX + name)
    await mkdir(fresh, { mode: 0o700 })
    const handle = await openOwnFolder(fresh)
    /** @type {net.Server | undefined} */
    let server
    try {
      server = await listenAt(inside(handle, fresh, SOCKET))
      await writeFile(inside(handle, fresh, OWNER), JSON.stringify({ boot: bootId(), socket: server !== undefined }), { mode: 0o600, flag: 'wx' })
      await rename(fresh, join(folder, name)) // nobody takes over what is named so and has no socket yet
      for (const each of [folder, ...(made ? [dirname(made)] : [])]) await syncFolder(each)
    } catch (error) {
      server?.close()
      await removeNewFolder(handle, fresh).catch(() => {})
      await handle.close().catch(() => {})
      throw error
    }
    return new OutboxFolder(folder, name, handle, server)
  }

  /** Write a file. It is complete and durable once it has its name. @param {string} stem @param {string} suffix @param {string} text */
  async write (stem, suffix, text) {
    const part = join(this.path, `${stem}.part`)
    try {
      const file = await open(part, NEW, 0o600)
      try {
        await file.writeFile(text)
        if (!IS_WRITE_SYNCED) await file.sync()
      } finally {
        file.close().catch(() => {}) // what is written is durable already
      }
      await rename(part, join(this.path, stem + suffix))
    } catch (error) {
      await unlink(part).catch(() => {})
      throw this.#checkLost(error)
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
    try { await rename(join(this.path, from), join(this.path, to)) } catch (error) { throw this.#checkLost(error) }
  }

  /** Make the names durable. Those who ask at the same time share one fsync. @returns {Promise<void>} */
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

  /** Release the folder: other processes take over its events. */
  async release () {
    clearInterval(this.heartbeat)
    await unlink(join(this.path, OWNER)).catch(() => {})
    await new Promise((resolve) => { if (this.server) this.server.close(resolve); else resolve(undefined) })
    await unlink(join(this.path, SOCKET)).catch(() => {})
    await this.handle.close().catch(() => {})
    await rmdir(this.path).catch(() => writeFile(join(this.path, OWNER), '{"released":true}', { mode: 0o600, flag: 'wx' }).catch(() => {}))
  }

  #touch () {
    const now = new Date()
    lutimes(join(this.path, OWNER), now, now).catch((error) => this.#checkLost(error))
  }

  /** @param {unknown} error */
  #checkLost (error) {
    if (codeOf(error) === 'ENOENT') this.lost = true // somebody took it over, or removed it
    return error
  }
}

/** Takes over the folders of dead processes. */
export class Takeover {
  /** @param {() => number} clock In milliseconds. */
  constructor (clock = () => performance.now()) {
    this.clock = clock
    /** @type {Map<string, {mtime: number, since: number}>} */
    this.watched = new Map()
  }

  /**
   * Move the folders of dead processes, and loose files, into `place`. Calls `failed` for each that cannot be moved.
   * @param {OutboxFolder} place @param {(name: string, error: unknown) => void} failed @returns {Promise<string[]>} The files that came, by name.
   */
  async takeOver (place, failed) {
    /** @type {string[]} */
    const files = []
    for (const entry of await readdir(place.path, { withFileTypes: true })) { // from an interrupted takeover
      if (entry.isDirectory()) await unpack(join(place.path, entry.name), place.path, files).catch((error) => failed(entry.name, error))
    }
    const beside = await readdir(place.folder, { withFileTypes: true })
    for (const name of this.watched.keys()) if (!beside.some((entry) => entry.name === name)) this.watched.delete(name)
    for (const entry of beside) {
      try {
        if (entry.name !== place.name && await this.#taken(place, entry, files)) this.watched.delete(entry.name)
      } catch (error) {
        if (codeOf(error) !== 'ENOENT') failed(entry.name, error) // ENOENT: another process was quicker
      }
    }
    return files
  }

  /** Whether an entry beside our sub-folder was moved into it. @param {OutboxFolder} place @param {import('node:fs').Dirent} entry @param {string[]} files */
  async #taken (place, entry, files) {
    const { name } = entry
    const path = join(place.folder, name)
    if (entry.isFile() && name.endsWith('.json')) {
      rejectForeignFile(await lstat(path))
      await rename(path, join(place.path, name))
      files.push(name)
      return true
    }
    if (!(entry.isDirectory() || entry.isSymbolicLink()) || !hasSameIssuer(name, place.name) || !await this.#isDead(path, name)) return false
    const taken = join(place.path, `taken-${name}`)
    await rename(path, taken)
    try {
      await (await openOwnFolder(taken)).close()
    } catch (error) { // another folder has taken the name since it was judged
      await rename(taken, path).catch(() => {})
      throw error
    }
    await unpack(taken, place.path, files)
    return true
  }

  /** @param {string} path @param {string} name */
  async #isDead (path, name) {
    const fresh = name.startsWith(NEW_PREFIX)
    if (fresh && Date.now() - (await lstat(path)).mtimeMs <= ABANDONED_MS) return false
    const handle = await openOwnFolder(path)
    try {
      if (fresh) await removeNewFolder(handle, path)
      return !fresh && await this.#isLeft(handle, path, name)
    } finally {
      await handle.close()
    }
  }

  /** Whether the owner of a folder is dead. @param {import('node:fs/promises').FileHandle} handle @param {string} path @param {string} name */
  async #isLeft (handle, path, name) {
    const owner = await readOwnFile(inside(handle, path, OWNER), MAX_OWNER_BYTES).then(JSON.parse).catch(() => undefined)
    if (owner?.released) return true
    if (owner?.socket && owner.boot && owner.boot === bootId()) {
      const answer = await probeSocket(inside(handle, path, SOCKET))
      if (answer !== 'unknown') return answer === 'dead'
    }
    const { mtimeMs: mtime } = await lstat(inside(handle, path, OWNER)).catch(() => handle.stat())
    const seen = this.watched.get(name)
    if (seen?.mtime === mtime) return this.clock() - seen.since >= DEAD_AFTER_MS
    this.watched.set(name, { mtime, since: this.clock() })
    return false
  }
}

/** The path of a file in an open folder, whatever has that folder's name now. @param {import('node:fs/promises').FileHandle} handle @param {string} path @param {string} name */
function inside (handle, path, name) {
  return BY_HANDLE ? `/proc/self/fd/${handle.fd}/${name}` : join(path, name)
}

/** Open a folder that belongs to our user and that nobody else may write to; throws ForeignFileError. @param {string} path */
async function openOwnFolder (path) {
  rejectSharedFolder(await lstat(path))
  const handle = await open(path, FOLDER)
  try {
    rejectSharedFolder(await handle.stat())
    return handle
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** @param {import('node:fs').Stats} seen Of what a process left. */
function rejectSharedFolder (seen) {
  if (seen.isSymbolicLink()) throw new ForeignFileError('it is a link. Remove it')
  if (seen.uid !== process.geteuid?.()) throw new ForeignFileError(`it belongs to another user (${seen.uid}), who may have put its events there. Inspect them, then chown it, or remove it`)
  if (seen.mode & ALL_WRITE || (seen.mode & GROUP_WRITES && !ownGroups().includes(seen.gid))) throw new ForeignFileError(`others may write to it (mode ${(seen.mode & 0o777).toString(8)}, group ${seen.gid}), so anybody may have put its events there. Inspect them, then chmod 700 it, or remove it`)
}

/** Such as a pod's `fsGroup`, to which Kubernetes opens a volume at each start. */
function ownGroups () {
  return [process.getegid?.(), ...(process.getgroups?.() ?? [])]
}

/** @param {import('node:fs').Stats} seen Of a file. */
function rejectForeignFile (seen) {
  if (seen.uid !== process.geteuid?.() && seen.uid !== 0) throw new ForeignFileError(`the file belongs to another user (${seen.uid}). Inspect it, then chown it, or remove it`)
}

/** Read a regular file of our user's or root's that has at most `most` bytes; throws ForeignFileError. Never blocks. @param {string} path @param {number} [most] */
export async function readOwnFile (path, most = Infinity) {
  const handle = await open(path, FILE).catch((error) => {
    throw IRREGULAR.includes(codeOf(error) ?? '') ? new ForeignFileError('it is not a regular file. Remove it') : error
  })
  try {
    const seen = await handle.stat()
    if (!seen.isFile()) throw new ForeignFileError('it is not a regular file. Remove it')
    rejectForeignFile(seen)
    if (seen.size > most) throw new ForeignFileError(`it has ${seen.size} bytes, more than ${most}. Inspect it, or remove it`)
    return await handle.readFile('utf8')
  } finally {
    await handle.close()
  }
}

/** Remove a folder that was being made, with what a claim puts there and nothing else. @param {import('node:fs/promises').FileHandle} handle @param {string} path */
async function removeNewFolder (handle, path) {
  for (const name of [OWNER, SOCKET]) {
    await unlink(inside(handle, path, name)).catch((error) => { if (codeOf(error) !== 'ENOENT') throw error })
  }
  await rmdir(path).catch((error) => {
    throw codeOf(error) === 'ENOTEMPTY' ? new ForeignFileError('it holds other files than a process that starts. Inspect them, then remove it') : error
  })
}

/** Whether both folders belong to providers with the same issuer. @param {string} name @param {string} ours */
function hasSameIssuer (name, ours) {
  return name.startsWith(NEW_PREFIX) || name.split('-')[2] === ours.split('-')[2]
}

/** Move the files of a folder that was taken over, including folders inside it; throws ForeignFileError. @param {string} from @param {string} to @param {string[]} files */
async function unpack (from, to, files) {
  await (await openOwnFolder(from)).close() // another may have taken its name before it was moved
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const path = join(from, entry.name)
    if (entry.isDirectory()) await unpack(path, to, files)
    else if (entry.name.endsWith('.part') || entry.name === OWNER || entry.name === SOCKET) await unlink(path)
    else {
      const name = entry.name === SESSIONS_FILE ? `${entry.name}-${randomBytes(6).toString('hex')}` : entry.name
      await rename(path, join(to, name))
      files.push(name)
    }
  }
  await rmdir(from)
}

/** The file of sessions that a process remembers. */
export const SESSIONS_FILE = 'sessions.jsonl'

/** @param {string} path @returns {Promise<net.Server | undefined>} */
function listenAt (path) {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => socket.destroy())
    server.once('error', () => resolve(undefined)) // a file system without sockets
    server.listen({ path, exclusive: true }, () => resolve(server.unref())) // exclusive: a cluster's primary would listen for us, and outlive us
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
