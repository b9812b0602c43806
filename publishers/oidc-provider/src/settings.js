/** Validates the options, applies the defaults, and reports all mistakes together. */
import { accessSync, constants, mkdirSync, readFileSync } from 'node:fs'
import { isAbsolute } from 'node:path'
import { parseAddress } from './server_address.js'
import { consoleLog } from './logger.js'
import { publicKeys } from './published_keys.js'

/** @typedef {import('../index.d.ts').Options} Options */

/** The options are invalid. `mistakes` lists every mistake. */
export class SettingsError extends Error {
  /** @param {string[]} mistakes */
  constructor (mistakes) {
    super(`notifier-oidc-provider cannot start:\n${mistakes.map((each) => `- ${each}`).join('\n')}`)
    this.name = 'SettingsError'
    /** @type {readonly string[]} */
    this.mistakes = mistakes
  }
}

const SETTING_NAMES = {
  options: ['url', 'secret', 'secretFile', 'outbox', 'tls', 'exchange', 'bulkExchange', 'limits', 'keys', 'keysFile', 'metadata', 'expiry', 'log'],
  outbox: ['folder', 'maxEvents', 'maxBytes', 'maxAge'],
  tls: ['caFile', 'certificateFile', 'keyFile'],
  limits: ['signOut', 'publish', 'drain'],
  expiry: ['store', 'maxSessions', 'every', 'bulk']
}

/** Reads the options of one group, and adds each mistake to `mistakes`. */
class OptionGroup {
  /** @param {unknown} value @param {keyof typeof SETTING_NAMES} name @param {string[]} mistakes */
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
      if (!SETTING_NAMES[name].includes(each)) mistakes.push(`${this.path}${each}: unknown setting, must be one of ${SETTING_NAMES[name].join(', ')}`)
    }
  }

  /** @param {string} name @returns {string | undefined} */
  readString (name) {
    const value = this.values[name]
    if (value === undefined) return undefined
    if (typeof value === 'string' && value) return value
    this.mistakes.push(`${this.path}${name}: must be a non-empty string`)
    return undefined
  }

  /** @param {string} name @param {number} defaultValue */
  readPositiveInteger (name, defaultValue) {
    const value = this.values[name] ?? defaultValue
    if (typeof value === 'number' && Number.isSafeInteger(value) && value > 0) return value
    this.mistakes.push(`${this.path}${name}: must be a positive integer`)
    return defaultValue
  }

  /** Read a number of milliseconds. The default maximum is that of setTimeout. @param {string} name @param {number} defaultValue */
  readMilliseconds (name, defaultValue, maximum = 2 ** 31 - 1) {
    const value = this.readPositiveInteger(name, defaultValue)
    if (value <= maximum) return value
    this.mistakes.push(`${this.path}${name}: must be at most ${maximum} milliseconds`)
    return defaultValue
  }

  /** @param {string} name @param {boolean} defaultValue */
  readBoolean (name, defaultValue) {
    const value = this.values[name] ?? defaultValue
    if (typeof value === 'boolean') return value
    this.mistakes.push(`${this.path}${name}: must be true or false`)
    return defaultValue
  }
}

/** Read the options; throws SettingsError. @param {Options} given */
export function readSettings (given) {
  /** @type {string[]} */
  const mistakes = []
  const options = new OptionGroup(given ?? {}, 'options', mistakes)
  const secrets = readSecretOptions(options)
  const tls = readTls(new OptionGroup(options.values.tls, 'tls', mistakes))
  const address = readUrl(options, secrets, tls)
  const outbox = readOutboxAndCreateFolder(new OptionGroup(options.values.outbox, 'outbox', mistakes))
  const limits = new OptionGroup(options.values.limits, 'limits', mistakes)
  const log = options.values.log ?? consoleLog
  if (typeof log !== 'function') mistakes.push('log: must be a function, called with each record')
  const settings = {
    address,
    ...secrets,
    tls,
    outbox,
    exchange: options.readString('exchange') ?? 'notifier.events',
    bulkExchange: options.readString('bulkExchange') ?? 'notifier.bulk',
    limits: { signOut: limits.readMilliseconds('signOut', 2_000), publish: limits.readMilliseconds('publish', 10_000), drain: limits.readMilliseconds('drain', 5_000) },
    ...readKeys(options),
    metadata: options.readBoolean('metadata', true),
    expiry: readExpiry(options.values.expiry, mistakes),
    log: /** @type {import('../index.d.ts').Log} */ (log)
  }
  if (mistakes.length || !address) throw new SettingsError(mistakes)
  return { ...settings, address }
}

/** @typedef {ReturnType<typeof readSettings>} Settings */

/** @param {OptionGroup} options */
function readSecretOptions (options) {
  const secret = options.readString('secret')
  const secretFile = options.readString('secretFile')
  if (secret !== undefined && secretFile !== undefined) options.mistakes.push('secret, secretFile: set only one of them')
  if (secretFile !== undefined) checkReadable(secretFile, 'secretFile', options.mistakes)
  return { secret, secretFile }
}

/** @param {OptionGroup} tls */
function readTls (tls) {
  const files = { caFile: tls.readString('caFile'), certificateFile: tls.readString('certificateFile'), keyFile: tls.readString('keyFile') }
  for (const [name, path] of Object.entries(files)) if (path !== undefined) checkReadable(path, `tls.${name}`, tls.mistakes)
  if (!files.certificateFile !== !files.keyFile) tls.mistakes.push('tls.certificateFile, tls.keyFile: a certificate requires its key, set both')
  return files
}

/** @param {OptionGroup} options @param {ReturnType<typeof readSecretOptions>} secrets @param {ReturnType<typeof readTls>} tls */
function readUrl (options, secrets, tls) {
  const url = options.readString('url')
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
    options.mistakes.push('url, secret, secretFile: the password is set twice, set it once')
  }
  if (!address.secure && Object.values(tls).some(Boolean)) options.mistakes.push(`tls: requires amqps:// or https://, but url begins with ${address.scheme}://`)
  return address
}

/** Read the options of the outbox, and create its folder if it does not exist. @param {OptionGroup} outbox */
function readOutboxAndCreateFolder (outbox) {
  const folder = outbox.readString('folder')
  if (folder === undefined) {
    if (outbox.values.folder === undefined) outbox.mistakes.push('outbox.folder: is required: a persistent folder, such as /var/lib/idp/notifier')
  } else if (!isAbsolute(folder)) {
    outbox.mistakes.push('outbox.folder: must be an absolute path, so that each start finds the same folder')
  } else {
    try {
      mkdirSync(folder, { recursive: true, mode: 0o700 })
      accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK)
    } catch (error) {
      const { code } = /** @type {NodeJS.ErrnoException} */ (error)
      if (code === 'EACCES' || code === 'EPERM' || code === 'ENOTDIR' || code === 'EEXIST') {
        outbox.mistakes.push(`outbox.folder: cannot be used (${code}): it must be a folder that is writable for this process`)
      } // a full or missing disk does not prevent the start: the outbox logs it
    }
  }
  return {
    folder: folder ?? '',
    maxEvents: outbox.readPositiveInteger('maxEvents', 100_000),
    maxBytes: outbox.readPositiveInteger('maxBytes', 268_435_456),
    maxAge: outbox.readMilliseconds('maxAge', 30 * 86_400_000, Number.MAX_SAFE_INTEGER)
  }
}

/** @param {OptionGroup} options */
function readKeys (options) {
  const keysFile = options.readString('keysFile')
  const keys = options.values.keys
  if (keysFile !== undefined && keys !== undefined) options.mistakes.push('keys, keysFile: set only one of them')
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
  const expiry = new OptionGroup(value === true ? {} : value, 'expiry', mistakes)
  const store = /** @type {import('../index.d.ts').ExpiryStore | undefined} */ (expiry.values.store)
  if (store !== undefined && !['put', 'due', 'remove'].every((name) => typeof (/** @type {any} */ (store))?.[name] === 'function')) {
    mistakes.push('expiry.store: must have the methods put, due and remove, like redisExpiry(…)')
  }
  return {
    store,
    maxSessions: expiry.readPositiveInteger('maxSessions', 100_000),
    every: expiry.readMilliseconds('every', 10_000),
    bulk: expiry.readBoolean('bulk', true)
  }
}

/** @param {string} path @param {string} name @param {string[]} mistakes */
function checkReadable (path, name, mistakes) {
  try {
    readFileSync(path)
  } catch (error) {
    mistakes.push(`${name}: cannot be read (${/** @type {NodeJS.ErrnoException} */ (error).code})`)
  }
}
