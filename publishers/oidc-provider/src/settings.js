/** Reads the options: their defaults, and every mistake at once. */
import { accessSync, constants, mkdirSync, readFileSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { parseAddress } from './server_address.js'
import { consoleLog } from './logger.js'
import { publicKeys } from './published_keys.js'

/** @typedef {import('../index.d.ts').Options} Options */

/** The options have mistakes. */
export class SettingsError extends Error {
  /** @param {string[]} mistakes */
  constructor (mistakes) {
    super(`notifier-oidc-provider cannot start:\n${mistakes.map((each) => `- ${each}`).join('\n')}`)
    this.name = 'SettingsError'
    /** @type {readonly string[]} */
    this.mistakes = mistakes
  }
}

const NAMES = {
  options: ['url', 'secret', 'secretFile', 'outbox', 'tls', 'exchange', 'bulkExchange', 'limits', 'keys', 'keysFile', 'metadata', 'expiry', 'log'],
  outbox: ['folder', 'maxEvents', 'maxBytes', 'maxAge'],
  tls: ['caFile', 'certificateFile', 'keyFile'],
  limits: ['signOut', 'publish', 'drain'],
  expiry: ['store', 'maxSessions', 'every', 'bulk']
}

/** Looks at one group of options, and notes what is wrong with it. */
class Group {
  /** @param {unknown} value @param {keyof typeof NAMES} name @param {string[]} mistakes */
  constructor (value, name, mistakes) {
    this.path = name === 'options' ? '' : `${name}.`
    this.mistakes = mistakes
    /** @type {Record<string, unknown>} */
    this.values = {}
    if (value === undefined) return
    if (value === null || typeof value !== 'object' || Array.isArray(value)) {
      mistakes.push(`${name}: must be an object`)
      return
    }
    this.values = /** @type {Record<string, unknown>} */ (value)
    for (const each of Object.keys(value)) {
      if (!NAMES[name].includes(each)) mistakes.push(`${this.path}${each}: there is no such setting, only ${NAMES[name].join(', ')}`)
    }
  }

  /** @param {string} name @returns {string | undefined} */
  text (name) {
    const value = this.values[name]
    if (value === undefined) return undefined
    if (typeof value === 'string' && value) return value
    this.mistakes.push(`${this.path}${name}: must be a text that is not empty`)
    return undefined
  }

  /** @param {string} name @param {number} otherwise */
  count (name, otherwise) {
    const value = this.values[name] ?? otherwise
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
    this.mistakes.push(`${this.path}${name}: must be a whole number above 0`)
    return otherwise
  }

  /** Milliseconds that a timer can hold, unless `atMost` is given. @param {string} name @param {number} otherwise */
  time (name, otherwise, atMost = 2 ** 31 - 1) {
    const value = this.count(name, otherwise)
    if (value <= atMost) return value
    this.mistakes.push(`${this.path}${name}: must be at most ${atMost} milliseconds`)
    return otherwise
  }

  /** @param {string} name @param {boolean} otherwise */
  flag (name, otherwise) {
    const value = this.values[name] ?? otherwise
    if (typeof value === 'boolean') return value
    this.mistakes.push(`${this.path}${name}: must be true or false`)
    return otherwise
  }
}

/** Read the options; throws a SettingsError. @param {Options} given */
export function readSettings (given) {
  /** @type {string[]} */
  const mistakes = []
  const options = new Group(given ?? {}, 'options', mistakes)
  const secrets = readSecret(options)
  const tls = readTls(new Group(options.values.tls, 'tls', mistakes))
  const address = readUrl(options, secrets, tls)
  const outbox = readOutbox(new Group(options.values.outbox, 'outbox', mistakes))
  const limits = new Group(options.values.limits, 'limits', mistakes)
  const log = options.values.log ?? consoleLog
  if (typeof log !== 'function') mistakes.push('log: must be a function that takes a record')
  const settings = {
    address,
    ...secrets,
    tls,
    outbox,
    exchange: options.text('exchange') ?? 'notifier.events',
    bulkExchange: options.text('bulkExchange') ?? 'notifier.bulk',
    limits: { signOut: limits.time('signOut', 2_000), publish: limits.time('publish', 10_000), drain: limits.time('drain', 5_000) },
    ...readKeys(options),
    metadata: options.flag('metadata', true),
    expiry: readExpiry(options.values.expiry, mistakes),
    log: /** @type {import('../index.d.ts').Log} */ (log)
  }
  if (mistakes.length || !address) throw new SettingsError(mistakes)
  return { ...settings, address }
}

/** @typedef {ReturnType<typeof readSettings>} Settings */

/** @param {Group} options */
function readSecret (options) {
  const secret = options.text('secret')
  const secretFile = options.text('secretFile')
  if (secret !== undefined && secretFile !== undefined) options.mistakes.push('secret, secretFile: give one of them')
  if (secretFile !== undefined) readable(secretFile, 'secretFile', options.mistakes)
  return { secret, secretFile }
}

/** @param {Group} tls */
function readTls (tls) {
  const files = { caFile: tls.text('caFile'), certificateFile: tls.text('certificateFile'), keyFile: tls.text('keyFile') }
  for (const [name, path] of Object.entries(files)) if (path !== undefined) readable(path, `tls.${name}`, tls.mistakes)
  if (!files.certificateFile !== !files.keyFile) tls.mistakes.push('tls.certificateFile, tls.keyFile: a certificate goes with its key, give both')
  return files
}

/** @param {Group} options @param {ReturnType<typeof readSecret>} secrets @param {ReturnType<typeof readTls>} tls */
function readUrl (options, secrets, tls) {
  const url = options.text('url')
  if (url === undefined) {
    if (options.values.url === undefined) options.mistakes.push('url: is required, such as amqps://user@rabbitmq.example.com:5671/ or https://notifier.example.com')
    return undefined
  }
  const address = parseAddress(url)
  if (typeof address === 'string') {
    options.mistakes.push(`url: ${address}`)
    return undefined
  }
  if (address.password !== undefined && (secrets.secret ?? secrets.secretFile) !== undefined) {
    options.mistakes.push('url, secret, secretFile: the password stands in two places, give it in one')
  }
  if (!address.secure && Object.values(tls).some(Boolean)) options.mistakes.push(`tls: goes with amqps:// or https://, and url begins with ${address.scheme}://`)
  return address
}

/** @param {Group} outbox */
function readOutbox (outbox) {
  const folder = outbox.text('folder')
  if (folder === undefined) {
    if (outbox.values.folder === undefined) outbox.mistakes.push('outbox.folder: is required, a folder that outlives the process, such as /var/lib/idp/notifier')
  } else if (!isAbsolute(folder)) {
    outbox.mistakes.push('outbox.folder: must be an absolute path, so that each start finds the same folder')
  } else {
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
    } catch (error) {
      const { code } = /** @type {NodeJS.ErrnoException} */ (error)
      if (code === 'EACCES' || code === 'EPERM' || code === 'ENOTDIR' || code === 'EEXIST') {
        outbox.mistakes.push(`outbox.folder: cannot be used (${code}), it must be a folder that this process may write to`)
      } // a full or missing disk does not prevent the start: the outbox logs it
    }
  }
  return {
    folder: folder ?? '',
    maxEvents: outbox.count('maxEvents', 100_000),
    maxBytes: outbox.count('maxBytes', 268_435_456),
    maxAge: outbox.time('maxAge', 30 * 86_400_000, Number.MAX_SAFE_INTEGER)
  }
}

/** @param {Group} options */
function readKeys (options) {
  const keysFile = options.text('keysFile')
  const keys = options.values.keys
  if (keysFile !== undefined && keys !== undefined) options.mistakes.push('keys, keysFile: give one of them')
  /** @type {import('../index.d.ts').PublicJwk[]} */
  let shown = []
  try {
    if (keys !== undefined) shown = publicKeys(keys)
  } catch (error) {
    options.mistakes.push(`keys: ${/** @type {Error} */ (error).message}`)
  }
  try {
    if (keysFile !== undefined) publicKeys(JSON.parse(readFileSync(keysFile, 'utf8')))
  } catch (error) {
    options.mistakes.push(`keysFile: ${/** @type {Error} */ (error).message}`)
  }
  return { keys: shown, keysFile }
}

/** @param {unknown} value @param {string[]} mistakes */
function readExpiry (value, mistakes) {
  if (value === undefined || value === false) return undefined
  const expiry = new Group(value === true ? {} : value, 'expiry', mistakes)
  const store = /** @type {import('../index.d.ts').ExpiryStore | undefined} */ (expiry.values.store)
  if (store !== undefined && !['put', 'due', 'remove'].every((name) => typeof (/** @type {any} */ (store))?.[name] === 'function')) {
    mistakes.push('expiry.store: must have the methods put, due and remove, as redisExpiry(…) has')
  }
  return {
    store,
    maxSessions: expiry.count('maxSessions', 100_000),
    every: expiry.time('every', 10_000),
    bulk: expiry.flag('bulk', true)
  }
}

/** @param {string} path @param {string} name @param {string[]} mistakes */
function readable (path, name, mistakes) {
  try {
    readFileSync(path)
  } catch (error) {
    mistakes.push(`${name}: cannot be read (${/** @type {NodeJS.ErrnoException} */ (error).code})`)
  }
}
