// Makes the URL of notifier's front-channel page. Node 18 or newer, nothing else.
//   PAGE_KEY=$(head -1 web.keys) node page_url.mjs https://login.example.com/connect/notify ISS SID CLIENT…
// A CLIENT is ID, ID=SID, ID=SID=required=URI or ID=SID=optional=URI.
import { createCipheriv, createHmac, randomBytes } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import { deflateSync } from 'node:zlib'

/**
 * `base` and `iss` are those of `web.issuers`. A client is its id, or [id, sid] if it knows a sid of its own.
 * One that notifier's registry may not have is [id, sid or null, frontchannel_logout_uri, whether it needs a sid], with
 * a key of this issuer alone. `sid` may be null. Throws if there are too many clients for one URL.
 */
export function pageUrl (base, key, iss, sid, clients) {
  const secret = Buffer.from(key, 'base64url')
  if (secret.length !== 32) throw new Error('the key must be 32 bytes as base64url')
  const plain = deflateSync(JSON.stringify([iss, sid, ...clients]), { level: 9 })
  const iv = randomBytes(16)
  const cipher = createCipheriv('aes-128-cbc', secret.subarray(16), iv)
  const head = Buffer.alloc(9) // Fernet: version, seconds since 1970, then the IV
  head[0] = 0x80
  head.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 1000)), 1)
  const signed = Buffer.concat([head, iv, cipher.update(plain), cipher.final()])
  const mac = createHmac('sha256', secret.subarray(0, 16)).update(signed).digest()
  const context = Buffer.concat([signed, mac]).toString('base64url')
  if (context.length > 7500) throw new Error('too many clients for one page')
  return `${base}/front-channel/${context}`
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [base, iss, sid, ...clients] = process.argv.slice(2)
  const entries = clients.map((client) => {
    const [id, own, need, ...uri] = client.split('=')
    if (own === undefined) return id
    return need === undefined ? [id, own] : [id, own || null, uri.join('='), need === 'required']
  })
  console.log(pageUrl(base, process.env.PAGE_KEY, iss, sid || null, entries))
}
