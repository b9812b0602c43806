// A real node-oidc-provider whose logged-out page asks clients by the browser. `node signed_out_server.mjs SETTINGS`.
//
// The application adds, by `sign_outs`: {api, token}: it sends the sign-out to POST /v1/sign-outs, and embeds the page
// that the answer names. {base, key, module}: it makes that page's address itself, by the documents' function.
// {frames}: no notifier; it frames each client's front-channel URI itself, as an upstream provider does.
import { createHash, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { Provider } from 'oidc-provider'

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { sign_outs: signOuts, also, upstream } = settings
const ended = new Map()
const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('"', '&quot;')

/** The clients of a session, each with its `sid`: the signed-in clients, and `also`. */
const clientsOf = (sids) => [...Object.entries(sids), ...also.map((client) => [client, sids[client] ?? createHash('sha256').update(client).digest('hex')])]

/** The address of the page for a session that has ended. */
async function pageOf ({ sub, sids }) {
  const clients = clientsOf(sids)
  if (signOuts.api) {
    const event = { iss: settings.issuer, sub, clients: clients.map(([client_id, sid]) => ({ client_id, sid })) }
    const headers = { Authorization: `Bearer ${signOuts.token}`, 'Content-Type': 'application/json' }
    const answer = await fetch(`${signOuts.api}/v1/sign-outs`, { method: 'POST', headers, body: JSON.stringify(event) })
    if (answer.status !== 202) throw new Error(`${answer.status}: ${await answer.text()}`)
    return [(await answer.json()).front_channel.url]
  }
  if (signOuts.base) {
    const { pageUrl } = await import(signOuts.module)
    return [pageUrl(signOuts.base, signOuts.key, settings.issuer, null, clients)]
  }
  return Object.entries(sids).map(([client, sid]) => `${signOuts.frames[client]}?${new URLSearchParams({ iss: settings.issuer, sid })}`)
}

const provider = new Provider(settings.issuer, {
  clients: settings.clients,
  jwks: settings.jwks,
  cookies: { keys: ['of the tests'], ...settings.cookies },
  pkce: { required: () => false },
  ttl: { Session: 3600, Interaction: 600, Grant: 3600, IdToken: 600, AccessToken: 600, AuthorizationCode: 60 },
  ...(upstream && { interactions: { url: (ctx, interaction) => `/upstream/${interaction.uid}` } }),
  features: {
    backchannelLogout: { enabled: true }, // without it an ID token has no `sid`
    devInteractions: { enabled: !upstream },
    rpInitiatedLogout: {
      async postLogoutSuccessSource (ctx) {
        const frames = (await pageOf(ended.get(ctx.cookies.get('ended')))).map((url) => `<iframe src="${escaped(url)}" width="600" height="160"></iframe>`)
        ctx.body = settings.template.replace('%s', frames.join(''))
      }
    }
  },
  async loadExistingGrant (ctx) { // nobody is asked for consent
    const { client, session, result } = ctx.oidc
    const known = result?.consent?.grantId ?? session.grantIdFor(client.clientId)
    if (known) return provider.Grant.find(known)
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId })
    grant.addOIDCScope('openid')
    await grant.save()
    return grant
  },
  fetch: (url, options) => { delete options.dispatcher; return fetch(url, options) } // else private addresses are refused
})
provider.proxy = true
provider.on('server_error', (ctx, error) => console.error(error))

// ── sessions here that began at an upstream ──

const sessions = new Map() // the upstream's `sid` → the session's uid here
const sids = (session) => Object.fromEntries(Object.keys(session.authorizations ?? {}).map((client) => [client, session.sidFor(client)]))

/** Sign in at the upstream, and come back to the interaction. */
async function atUpstream (ctx) {
  const uid = ctx.path.split('/')[2] ?? ctx.query.state
  const redirect = `${settings.issuer}/upstream`
  if (!ctx.query.code) {
    const asked = { client_id: upstream.client_id, response_type: 'code', scope: 'openid', redirect_uri: redirect, state: uid }
    return ctx.redirect(`${upstream.issuer}${upstream.authorization}?${new URLSearchParams(asked)}`)
  }
  if (ctx.path === '/upstream') return ctx.redirect(`/upstream/${uid}?code=${encodeURIComponent(ctx.query.code)}`) // its cookie is for that path
  const form = new URLSearchParams({ grant_type: 'authorization_code', code: ctx.query.code, redirect_uri: redirect })
  const headers = { Authorization: `Basic ${btoa(`${upstream.client_id}:${upstream.secret}`)}` }
  const answer = await fetch(upstream.token, { method: 'POST', body: form, headers })
  const { id_token: token } = await answer.json()
  const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url'))
  const sub = `up|${claims.sub}`
  pending.set(sub, claims.sid)
  await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: sub } })
  ctx.respond = false
}
const pending = new Map()
provider.on('authorization.success', ({ oidc: { session } }) => {
  const sid = pending.get(session.accountId)
  if (sid) sessions.set(sid, session.uid)
})

/** The sessions that end here, for notifier's `resolve: {http}`. Each client of this library has its own `sid`. */
async function sessionsOf (ctx) {
  const chunks = []
  for await (const chunk of ctx.req) chunks.push(chunk)
  const { sid } = JSON.parse(Buffer.concat(chunks))
  const session = sessions.has(sid) && await provider.Session.findByUid(sessions.get(sid))
  ctx.body = session ? clientsOf(sids(session)).map(([client, own]) => ({ sub: session.accountId, sid: own, clients: [client] })) : []
}

provider.use(async (ctx, next) => {
  if (ctx.path.startsWith('/upstream')) return atUpstream(ctx)
  if (ctx.path === '/own/sessions') return sessionsOf(ctx)
  if (ctx.path === '/session/end/confirm') {
    const session = await provider.Session.get(ctx)
    const key = randomUUID() // the page that follows is another request
    ended.set(key, { sub: session.accountId, sids: sids(session) })
    ctx.cookies.set('ended', key, { secure: true })
  }
  return next()
})
createServer(provider.callback()).listen(settings.port, '127.0.0.1', () => process.stdout.write('listening\n'))
