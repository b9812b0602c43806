/**
 * Creates the events of an ended session: an id, and an entry for each client with the provider's metadata.
 *
 * A client gets a `sid` only if its ID token had one, because it cannot match an unknown `sid`. A pairwise client gets the
 * `sub` of its ID tokens. The `jti` of a session is the value of its cookie, and is never published.
 */
import { createHash, randomUUID } from 'node:crypto'

/** @typedef {{uid: string, accountId: string, sids: Record<string, string | undefined>, reason: string, exp?: number}} SessionEnd */
/** @typedef {Record<string, unknown> & {id: string}} SessionEnded */

const ALGORITHMS = new Set(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'])
const LABEL = '[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?'
/** A URL that notifier accepts. An invalid URL would make it ignore the whole client. */
const PAGE_URI = new RegExp(`^https?://(?=[^/?:]{1,253}(?:[/?:]|$))(?:${LABEL}\\.)*(?=[A-Za-z])${LABEL}(?::(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}))?(?:[/?][!"$-[\\]-~]*)?$`)
const MAX_URI_LENGTH = 4096 // characters
const MAX_CLIENTS = 100
const MAX_EVENT_BYTES = 100_000 // notifier accepts 128 KiB

export class EventBuilder {
  /** @param {any} provider @param {boolean} metadata @param {import('./logger.js').Logger} log */
  constructor (provider, metadata, log) {
    this.provider = provider
    this.metadata = metadata
    this.log = log
  }

  /** Create one event, or several of up to 100 clients each. @param {SessionEnd} end @returns {Promise<SessionEnded[]>} */
  async build (end) {
    const at = new Date(end.exp === undefined ? Date.now() : end.exp * 1_000).toISOString()
    const entries = (await Promise.all(Object.entries(end.sids).map(([id, sid]) => this.#buildEntry(id, sid, end.accountId))))
    const named = entries.filter(({ hasNoSub }) => !hasNoSub).map(({ entry }) => entry)
    const events = split(named).map((clients) => this.#event(end, clients, at, { sub: end.accountId }))
    for (const { entry, hasNoSub } of entries) { // the events' `sub` belongs to the other clients
      if (hasNoSub && entry.sid) events.push(this.#event(end, [entry], at, { sid: entry.sid }))
      else if (hasNoSub) this.log.log({ level: 'error', event: 'client_not_told', message: 'the pairwise sub of a client cannot be computed, and its entry has no sid: it cannot be notified', client_id: entry.client_id })
    }
    return events
  }

  /** @param {SessionEnd} end @param {ClientEntry[]} clients @param {string} at @param {object} whose @returns {SessionEnded} */
  #event ({ uid, sids, reason }, clients, at, whose) {
    const pairs = clients.map(({ client_id: id }) => `${id} ${sids[id] ?? randomUUID()}`).sort()
    const id = createHash('sha256').update([uid, ...pairs].join('\n')).digest('base64url') // repeated events of the same session end have the same id
    return { id, iss: this.provider.issuer, ...whose, clients, ended_at: at, reason }
  }

  /** @typedef {{client_id: string, sid?: string} & Record<string, unknown>} ClientEntry */
  /** @param {string} clientId @param {string | undefined} sid @param {string} accountId @returns {Promise<{entry: ClientEntry, hasNoSub?: boolean}>} */
  async #buildEntry (clientId, sid, accountId) {
    /** @type {any} */
    let client
    try {
      client = await this.provider.Client.find(clientId)
    } catch {
      this.log.limited('client_not_read', { level: 'error', event: 'client_not_read', message: 'a client cannot be read from its store: the event contains only its id, and notifier needs it in a registry', client_id: clientId })
      return { entry: { client_id: clientId } }
    }
    const uri = client?.backchannelLogoutUri
    /** @type {ClientEntry} */
    const entry = { client_id: clientId, ...(uri && client.backchannelLogoutSessionRequired && { sid }) }
    if (this.metadata) Object.assign(entry, this.#metadata(client, uri), frontchannelMembers(client))
    if (client?.subjectType !== 'pairwise') return { entry }
    try {
      const claims = new this.provider.Claims({ sub: accountId }, { client, ctx: undefined }) // like the library's own logout tokens
      claims.mask({ sub: null })
      return { entry: { ...entry, sub: (await claims.result()).sub } }
    } catch {
      this.log.limited('no_sub', { level: 'error', event: 'pairwise_sub_failed', message: 'pairwiseIdentifier throws: the client is notified by its sid only', client_id: clientId })
      return { entry, hasNoSub: true }
    }
  }

  /** @param {any} client @param {string | undefined} uri */
  #metadata (client, uri) {
    if (!uri) return { backchannel_logout_uri: null } // notifier then skips the client instead of reporting it as unknown
    const alg = client.idTokenSignedResponseAlg
    if (!ALGORITHMS.has(alg)) {
      this.log.limited(`alg ${client.clientId}`, { level: 'warn', event: 'algorithm_not_told', message: `a client requires ${alg}, which notifier does not support: its logout tokens use RS256, or the algorithm of notifier's registry`, client_id: client.clientId }, 86_400_000)
    }
    return {
      backchannel_logout_uri: uri,
      backchannel_logout_session_required: Boolean(client.backchannelLogoutSessionRequired),
      ...(ALGORITHMS.has(alg) && { id_token_signed_response_alg: alg })
    }
  }
}

/** The client's front-channel members, if `extraClientMetadata` keeps them. @param {any} client */
function frontchannelMembers (client) {
  const uri = client?.frontchannel_logout_uri
  if (typeof uri !== 'string' || uri.length > MAX_URI_LENGTH || !PAGE_URI.test(uri)) return {}
  return { frontchannel_logout_uri: uri, frontchannel_logout_session_required: client.frontchannel_logout_session_required === true }
}

/** Split the entries into lists that fit into one event each. @param {ClientEntry[]} entries @returns {ClientEntry[][]} */
function split (entries) {
  /** @type {ClientEntry[][]} */
  const lists = []
  let bytes = Infinity
  for (const entry of entries) {
    const size = Buffer.byteLength(JSON.stringify(entry)) + 1
    const last = lists.at(-1)
    if (!last || last.length === MAX_CLIENTS || bytes + size > MAX_EVENT_BYTES) {
      lists.push([entry])
      bytes = size
    } else {
      last.push(entry)
      bytes += size
    }
  }
  return lists
}
