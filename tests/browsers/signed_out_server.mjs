// A real node-oidc-provider whose logged-out page asks clients by the browser. `node signed_out_server.mjs SETTINGS`.
//
// What its application adds, by `told`: {api, token}: it sends the sign-out to POST /v1/sign-outs, and embeds the page
// that the answer names. {base, key, module}: it makes that page's address itself, by the documents' function.
import { createHash, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { Provider } from 'oidc-provider'

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { told, also } = settings
const ended = new Map()
const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('"', '&quot;')

/** The address of the page for a session that has ended; the clients are those that signed in, and `also`. */
async function pageOf ({ sub, sids }) {
  const clients = [...Object.entries(sids), ...also.map((client) => [client, sids[client] ?? createHash('sha256').update(client).digest('hex')])]
  if (told.api) {
    const event = { iss: settings.issuer, sub, clients: clients.map(([client_id, sid]) => ({ client_id, sid })) }
    const headers = { Authorization: `Bearer ${told.token}`, 'Content-Type': 'application/json' }
    const answer = await fetch(`${told.api}/v1/sign-outs`, { method: 'POST', headers, body: JSON.stringify(event) })
    if (answer.status !== 202) throw new Error(`${answer.status}: ${await answer.text()}`)
    return (await answer.json()).front_channel.url
  }
  const { pageUrl } = await import(told.module)
  return pageUrl(told.base, told.key, settings.issuer, null, clients)
}

const provider = new Provider(settings.issuer, {
  clients: settings.clients,
  jwks: settings.jwks,
  cookies: { keys: ['of the tests'] },
  pkce: { required: () => false },
  ttl: { Session: 3600, Interaction: 600, Grant: 3600, IdToken: 600, AccessToken: 600, AuthorizationCode: 60 },
  features: {
    backchannelLogout: { enabled: true }, // without it an ID token has no `sid`
    devInteractions: { enabled: true },
    rpInitiatedLogout: {
      async postLogoutSuccessSource (ctx) {
        const url = await pageOf(ended.get(ctx.cookies.get('ended')))
        ctx.body = settings.template.replace('%s', `<iframe src="${escaped(url)}" width="600" height="160"></iframe>`)
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

const sids = (session) => Object.fromEntries(Object.keys(session.authorizations ?? {}).map((client) => [client, session.sidFor(client)]))

provider.use(async (ctx, next) => {
  if (ctx.path === '/session/end/confirm') {
    const session = await provider.Session.get(ctx)
    const key = randomUUID() // the page that follows is another request
    ended.set(key, { sub: session.accountId, sids: sids(session) })
    ctx.cookies.set('ended', key, { secure: true })
  }
  return next()
})
createServer(provider.callback()).listen(settings.port, '127.0.0.1', () => process.stdout.write('listening\n'))
