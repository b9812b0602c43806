/** The broker's password or the API's token, and the files of `tls`: read again at each connection. */
import { readFile } from 'node:fs/promises'
import { PublishFailure } from './publish_failure.js'

/** @param {{secret: string | undefined, secretFile: string | undefined}} settings @returns {Promise<string | undefined>} */
export async function readSecret ({ secret, secretFile }) {
  if (secretFile === undefined) return secret
  return (await readConnectionFile(secretFile, 'secretFile', 'denied')).toString('utf8').trim()
}

/** The certificates and the key for a TLS connection, as options of `node:tls`. @param {import('../index.d.ts').TlsOptions} tls */
export async function readTlsFiles ({ caFile, certificateFile, keyFile }) {
  const [ca, cert, key] = await Promise.all(Object.entries({ caFile, certificateFile, keyFile }).map(([name, path]) => path && readConnectionFile(path, `tls.${name}`, 'unreachable')))
  return { ...(ca && { ca }), ...(cert && { cert, key: key || undefined }) }
}

/** @param {string} path @param {string} setting @param {import('./publish_failure.js').FailureReason} reason */
async function readConnectionFile (path, setting, reason) {
  try {
    return await readFile(path)
  } catch (error) {
    throw new PublishFailure(reason, `${setting} cannot be read (${/** @type {NodeJS.ErrnoException} */ (error).code})`)
  }
}
