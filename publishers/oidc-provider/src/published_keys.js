/**
 * Adds notifier's public keys to the provider's JWK Set. The provider continues to sign with its own keys.
 *
 * oidc-provider accepts only private keys in `jwks`, so the keys are added to the response of that route.
 */
import { readFileSync, statSync } from 'node:fs'

/** @typedef {import('../index.d.ts').PublicJwk} PublicJwk */

const PRIVATE_MEMBERS = new Set(['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'priv', 'k'])
const CHECK_INTERVAL_MS = 10_000

/** The keys of a list or a JWK Set without their private members; throws if a key must not be published. @param {unknown} document @returns {PublicJwk[]} */
export function publicKeys (document) {
  const keys = Array.isArray(document) ? document : /** @type {any} */ (document)?.keys
  if (!Array.isArray(keys)) throw new Error('must be a JWK Set, as `notifier keys jwks` prints it, or a list of keys')
  const kids = new Set()
  return keys.map((key, index) => {
    if (key === null || typeof key !== 'object' || typeof key.kty !== 'string') throw new Error(`key ${index + 1} is not a JSON Web Key`)
    if (key.kty === 'oct') throw new Error(`key ${index + 1} is a shared secret, which must never be published`)
    if (key.kid !== undefined && kids.has(key.kid)) throw new Error(`key ${index + 1} repeats the kid ${key.kid} of another key`)
    kids.add(key.kid)
    return /** @type {PublicJwk} */ (Object.fromEntries(Object.entries(key).filter(([name]) => !PRIVATE_MEMBERS.has(name))))
  })
}

/** notifier's current keys: reads `keysFile` again when it has changed. */
export class PublishedKeys {
  /** @param {{keys: PublicJwk[], keysFile: string | undefined}} settings @param {import('./logger.js').Logger} log */
  constructor ({ keys, keysFile }, log) {
    this.keys = keys
    this.file = keysFile
    this.log = log
    this.checkedAt = -Infinity
    this.version = ''
  }

  /** The provider's keys and notifier's. @template {{kid?: string}} Key @param {Key[]} providerKeys @returns {(Key | PublicJwk)[]} */
  addTo (providerKeys) {
    this.#reload()
    const kids = new Set(providerKeys.map(({ kid }) => kid).filter((kid) => kid !== undefined))
    return [...providerKeys, ...this.keys.filter((key) => {
      if (key.kid === undefined || !kids.has(key.kid)) return true
      this.log.limited(`kid ${key.kid}`, { level: 'error', event: 'key_not_shown', message: `the provider already has a key ${key.kid}; give notifier's key another kid`, kid: key.kid })
      return false
    })]
  }

  /** Read the file again if it has changed, at most every 10 s. */
  #reload () {
    if (this.file === undefined || performance.now() - this.checkedAt < CHECK_INTERVAL_MS) return
    this.checkedAt = performance.now()
    try {
      const { mtimeMs, size, ino } = statSync(this.file)
      const version = `${mtimeMs} ${size} ${ino}`
      if (version === this.version) return
      this.keys = publicKeys(JSON.parse(readFileSync(this.file, 'utf8')))
      this.version = version
    } catch (error) {
      this.log.limited('keysFile', { level: 'error', event: 'keys_not_read', message: `keysFile cannot be read, so the former keys remain in use: ${/** @type {Error} */ (error).message}` })
    }
  }
}
