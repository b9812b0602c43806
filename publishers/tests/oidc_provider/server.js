// One process of an identity server with node-oidc-provider and the package, as an application of a user would be.
// `node server.js SETTINGS.json`: see Settings in provider.py. A line of standard output that begins with {"event" is an
// event of the library. `/own/…` stands for the application's own code, and makes faults.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { Provider } = await import(settings.version.startsWith('8') ? 'oidc-provider-8' : 'oidc-provider')
const emit = (event, more = {}) => { if (settings.emit) process.stdout.write(JSON.stringify({ event, ...more }) + '\n') }
const faults = { ...settings.faults } // set by /own/fault too: revoke, die

// The store that the library's documentation has as an example, and what can happen to it.
let redis
const grantable = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken'])
class RedisAdapter {
  constructor (name) { this.name = name }
  key (id) { return `${this.name}:${id}` }
  async upsert (id, payload, ttl) {
    const many = redis.multi().set(this.key(id), JSON.stringify(payload), 'EX', ttl)
    if (grantable.has(this.name) && payload.grantId) many.rpush(`grant:${payload.grantId}`, this.key(id)).expire(`grant:${payload.grantId}`, 3600)
    if (payload.uid) many.set(`uid:${payload.uid}`, id, 'EX', ttl)
    await many.exec()
  }

  async find (id) { const found = await redis.get(this.key(id)); return found ? JSON.parse(found) : undefined }
  async findByUid (uid) {
    const id = await redis.get(`uid:${uid}`)
    return id ? this.find(id) : undefined
  }

  async findByUserCode () {}
  async consume (id) { const found = await this.find(id); await redis.set(this.key(id), JSON.stringify({ ...found, consumed: 1 }), 'KEEPTTL') }
  async destroy (id) {
    if (this.name === 'Session') {
      if (faults.die === 'before') process.kill(process.pid, 'SIGKILL')
    }
    await redis.del(this.key(id))
  }

  async revokeByGrantId (id) {
    if (faults.revoke) throw new Error('the store is unavailable')
    const keys = await redis.lrange(`grant:${id}`, 0, -1)
    if (keys.length) await redis.del(...keys)
    await redis.del(`grant:${id}`)
  }
}
if (settings.redis) {
  const { default: Redis } = await import('ioredis')
  redis = new Redis(settings.redis)
}

const keys = JSON.parse(readFileSync(settings.keys, 'utf8'))
const provider = new Provider(settings.issuer, {
  clients: settings.clients,
  jwks: keys.provider,
  cookies: { keys: ['of the tests'] },
  subjectTypes: ['public', 'pairwise'],
  pairwiseIdentifier: (ctx, accountId, client) => createHash('sha256').update(`${client.sectorIdentifier}/${accountId}`).digest('hex').slice(0, 16),
  pkce: { required: () => false },
  scopes: ['openid', 'offline_access'],
  ttl: { Session: settings.session, AccessToken: 600, AuthorizationCode: 60, IdToken: 600, Interaction: 600, Grant: 3600, RefreshToken: 3600 },
  features: { backchannelLogout: { enabled: true }, revocation: { enabled: true }, devInteractions: { enabled: true }, claimsParameter: { enabled: true } },
  // Nobody is asked for consent: the documentation's recipe for clients of one's own.
  async loadExistingGrant (ctx) {
    const { client, session, result } = ctx.oidc
    const known = result?.consent?.grantId ?? session.grantIdFor(client.clientId)
    if (known) return provider.Grant.find(known)
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId })
    grant.addOIDCScope('openid offline_access')
    grant.addOIDCClaims(['sid'])
    await grant.save()
    return grant
  },
  issueRefreshToken: (ctx, client, code) => code.scopes.has('offline_access'),
  // 9.x refuses private addresses: without this, the absence of posts would prove nothing.
  ...(settings.version.startsWith('8') ? {} : { fetch: (url, options) => { delete options.dispatcher; return fetch(url, options) } }),
  ...(redis && { adapter: RedisAdapter })
})

const clientOf = (...given) => given.find((each) => each?.clientId)?.clientId
for (const name of ['backchannel.success', 'backchannel.error', 'end_session.success', 'grant.revoked', 'server_error', 'session.destroyed']) {
  provider.on(name, (...given) => emit(name, { client: clientOf(...given), error: given.find((each) => each instanceof Error)?.message }))
}

let publisher
async function publish () {
  const { publishLogouts, redisExpiry } = await import('notifier-oidc-provider')
  const options = { ...settings.publisher, keys: keys.notifier }
  if (options.expiry?.store === 'redis') options.expiry = { ...options.expiry, store: redisExpiry(redis) }
  publisher = publishLogouts(provider, options)
}
if (settings.publisher && !settings.late) await publish()

const counted = ({ written, published, lost, refused, expired, failures, waiting, waitingInMemory, oldest } = {}) =>
  ({ written, published, lost, refused, expired, failures, waiting, waitingInMemory, oldest })
const own = {
  destroy: async (session) => session.destroy(),
  'adapter-destroy': async (session) => provider.Session.adapter.destroy(session.jti),
  'grant-destroy': async (session, { client }) => (await provider.Grant.find(session.grantIdFor(client))).destroy(),
  forget: async (session, { client }) => { delete session.authorizations[client]; await session.persist() },
  'destroy-in-bulk': async (session, { uids }) => publisher.inBulk(() => Promise.all(uids.split(',').map(async (uid) => (await provider.Session.findByUid(uid)).destroy()))),
  fault: async (session, { name, value }) => { faults[name] = value },
  state: async () => {},
  memory: async () => { globalThis.gc?.() }
}
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/own/')) return next()
  const session = await provider.Session.get(ctx)
  await own[ctx.path.slice(5)](session, ctx.query)
  const { heapUsed, external } = process.memoryUsage()
  ctx.body = { lives: Boolean(session.accountId), uid: session.uid, memory: heapUsed + external, ...counted(publisher) }
})

let server
if (settings.path) {
  const { default: express } = await import('express')
  const application = express()
  application.use(settings.path, provider.callback())
  server = createServer(application)
} else server = createServer(provider.callback())
if (settings.publisher && settings.late) await publish()
server.listen(settings.port, '127.0.0.1', () => process.stdout.write('{"event":"listening"}\n'))
process.on('SIGTERM', async () => {
  server.close()
  server.closeAllConnections()
  await publisher?.close?.()
  redis?.disconnect()
  process.exit(0)
})
