/** What tests share: a provider with sessions, an API with configurable answers, folders, and waiting for visible effects. */
import { createHash, generateKeyPairSync, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Provider } from 'oidc-provider'
import { publishLogouts } from '../src/index.js'

const PATIENCE = 15_000
const RSA = { ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }), kid: 'own-rsa' }

/** What `look` gives once it is true. */
export async function until (look, what = look.toString()) {
  const end = Date.now() + PATIENCE
  for (;;) {
    const found = await look()
    if (found) return found
    if (Date.now() > end) throw new Error(`never: ${what}`)
    await pause(10)
  }
}

/** A folder of the test's own. */
export function folderOf (t) {
  const folder = mkdtempSync(join(tmpdir(), 'notifier-oidc-provider-'))
  t.after(() => setImmediate(() => rmSync(folder, { recursive: true, force: true }))) // after what uses it
  return folder
}

/** The files below a folder, by their names alone. */
export function filesIn (folder, suffix = '') {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(suffix)).map(({ name }) => name).sort()
}

/** A log that is kept. */
export function keptLog () {
  const records = []
  const log = (record) => records.push(record)
  return Object.assign(log, { records, of: (event) => records.filter((record) => record.event === event) })
}

/** notifier's API: `answer(event, request)` gives a status, or [status, headers, body]; 202 by default, errors as problems. */
export async function api (t, answer = () => 202, options = undefined) {
  const got = []
  const serve = async (request, response) => {
    let body = ''
    for await (const piece of request) body += piece
    const event = JSON.parse(body)
    const [status, headers = {}, text] = [await answer(event, request)].flat()
    const confirms = status === 202 && text === undefined
    if (confirms) got.push({ event, path: request.url, headers: request.headers })
    const document = confirms ? { id: event.id } : { type: 'urn:notifier:problem', title: 'The event is malformed', status }
    response.writeHead(status, { 'content-type': confirms ? 'application/json' : 'application/problem+json', ...headers }).end(text ?? JSON.stringify(document))
  }
  const server = options ? (await import('node:https')).createServer(options, serve) : http.createServer(serve)
  await once(server.listen(0, '127.0.0.1'), 'listening')
  t.after(() => { server.close(); server.closeAllConnections() })
  return { url: `http${options ? 's' : ''}://127.0.0.1:${server.address().port}`, got, events: () => got.map(({ event }) => event), server }
}

/** A port at which nobody listens. */
export const NOWHERE = 'http://127.0.0.1:9'

export const CLIENTS = [
  client('shop', { backchannel_logout_uri: 'https://shop.example.com/out', backchannel_logout_session_required: true }),
  client('mail', { backchannel_logout_uri: 'https://mail.example.com/out', id_token_signed_response_alg: 'ES256' }),
  client('pair', { backchannel_logout_uri: 'https://pair.example.com/out', backchannel_logout_session_required: true, subject_type: 'pairwise' }),
  client('bare')
]

export function client (id, more = {}) {
  return { client_id: id, client_secret: 'x'.repeat(64), redirect_uris: [`https://${id}.example.com/cb`], ...more }
}

/** The pairwise subject of our providers. */
export const pairwise = (sector, account) => createHash('sha256').update(`${sector} ${account}`).digest('hex')

/** A provider in memory, of 9.x unless the library is given. */
export function provider (configuration = {}, library = Provider) {
  const { warn } = console
  console.warn = () => {} // it wants an adapter and interactions of production
  try {
    return new library('https://id.example.com', {
      clients: CLIENTS,
      cookies: { keys: ['test'] },
      jwks: { keys: [{ ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' }), kid: 'own-ec' }, RSA] },
      subjectTypes: ['public', 'pairwise'],
      enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'HS256'] },
      pairwiseIdentifier: (_ctx, account, { sectorIdentifier }) => pairwise(sectorIdentifier, account),
      features: { backchannelLogout: { enabled: true } },
      ...configuration
    })
  } finally {
    console.warn = warn
  }
}

/** Sessions of a provider in memory whose logouts are published to `url`. */
export async function rig (t, { library = Provider, configuration = {}, url = NOWHERE, folder = folderOf(t), ...options } = {}) {
  const op = provider(configuration, library)
  const log = keptLog()
  const logouts = publishLogouts(op, { url, log, ...options, outbox: { folder, ...options.outbox } })
  t.after(() => logouts.close())
  return { op, log, logouts, folder, session: (account, clients, ttl) => session(op, account, clients, ttl) }
}

/** A session that is kept, at these clients, or with these session ids. */
export async function session (op, account = 'alice', clients = ['shop', 'mail', 'pair', 'bare'], ttl = 600) {
  const sids = Array.isArray(clients) ? Object.fromEntries(clients.map((id) => [id, randomUUID()])) : clients
  const made = new op.Session({ accountId: account, loginTs: 1, authorizations: Object.fromEntries(Object.entries(sids).map(([id, sid]) => [id, { sid }])) })
  await made.save(ttl)
  return Object.assign(made, { sids })
}

/** The only document in the folder with this suffix. */
export function documentIn (folder, suffix) {
  const [name] = readdirSync(folder, { recursive: true }).filter((each) => each.endsWith(suffix))
  return JSON.parse(readFileSync(join(folder, name), 'utf8'))
}
