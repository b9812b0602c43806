/** The broker's password or the API's token, read again at each connection. */
import { readFile } from 'node:fs/promises'
import { PublishFailure } from './publish_failure.js'

/** @param {{secret: string | undefined, secretFile: string | undefined}} settings @returns {Promise<string | undefined>} */
export async function readSecret ({ secret, secretFile }) {
  if (secretFile === undefined) return secret
  try {
    return (await readFile(secretFile, 'utf8')).trim()
  } catch (error) {
    throw new PublishFailure('denied', `secretFile cannot be read (${/** @type {NodeJS.ErrnoException} */ (error).code})`)
  }
}
