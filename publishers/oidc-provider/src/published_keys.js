/**
 * Adds notifier's public keys to the provider's JWK Set. The provider continues to sign with its own keys.
 *
 * oidc-provider accepts only private keys in `jwks`, so the keys are added to the response of that route.
 */
import { readFileSync, statSync } from 'node:fs'

/** @typedef {import('../index.d.ts').PublicJwk} PublicJwk */

const PRIVATE = new Set(['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'priv', 'k'])
const LOOK = 10_000

/** The keys of a list or a JWK Set without their private members; throws if one cannot be shown. @param {unknown} given @returns {PublicJwk[]} */
export function publicKeys (given) {
  const keys = Array.isArray(given) ? given : /** @type {any} */ (given)?.keys
  if (!Array.isArray(keys)) throw new Error('must be a JWK Set, as `notifier keys jwks` prints it, or a list of keys')
  const kids = new Set()
  return keys.map((key, index) => {
    if (key === null || typeof key !== 'object' || typeof key.kty !== 'string') throw new Error(`key ${index + 1} is not a JSON Web Key`)
    if (key.kty === 'oct') throw new Error(`key ${index + 1} is a shared secret, which must never be shown`)
    if (key.kid !== undefined && kids.has(key.kid)) throw new Error(`key ${index + 1} has the kid of another, ${key.kid}`)
    kids.add(key.kid)
    return /** @type {PublicJwk} */ (Object.fromEntries(Object.entries(key).filter(([name]) => !PRIVATE.has(name))))
  })
}

/** notifier's keys as they are now. */
export class PublishedKeys {
  /** @param {{keys: PublicJwk[], keysFile: string | undefined}} settings @param {import('./logger.js').Logger} log */
  constructor ({ keys, keysFile }, log) {
    this.keys = keys
    this.file = keysFile
    this.log = log
    this.looked = -Infinity
    this.seen = ''
  }

  /** @template {{kid?: string}} Key @param {Key[]} theirs @returns {(Key | PublicJwk)[]} */
  addTo (theirs) {
    this.#look()
    const kids = new Set(theirs.map(({ kid }) => kid).filter((kid) => kid !== undefined))
    return [...theirs, ...this.keys.filter((key) => {
      if (key.kid === undefined || !kids.has(key.kid)) return true
      this.log.limited(`kid ${key.kid}`, { level: 'error', event: 'key_not_shown', message: `the provider already has a key ${key.kid}; give notifier's key another kid`, kid: key.kid })
      return false
    })]
  }

  #look () {
    if (this.file === undefined || performance.now() - this.looked < LOOK) return
    this.looked = performance.now()
    try {
      const { mtimeMs, size, ino } = statSync(this.file)
      const seen = `${mtimeMs} ${size} ${ino}`
      if (seen === this.seen) return
      this.keys = publicKeys(JSON.parse(readFileSync(this.file, 'utf8')))
      this.seen = seen
    } catch (error) {
      this.log.limited('keysFile', { level: 'error', event: 'keys_not_read', message: `keysFile cannot be read, the keys of before are shown: ${/** @type {Error} */ (error).message}` })
    }
  }
}
