// Better Auth as an OpenID Provider, in memory. It registers public https addresses only, so its clients and the relay
// have such names, which lead to loopback. It prints the ids and secrets of its clients. Its sign-in page asks nothing.
import http from 'node:http'
import { oauthProvider } from '@better-auth/oauth-provider'
import { betterAuth } from 'better-auth'
import { memoryAdapter } from 'better-auth/adapters/memory'
import { toNodeHandler } from 'better-auth/node'
import { jwt } from 'better-auth/plugins'

const { ISSUER, PORT, LOGOUT_ADDRESS, CLIENTS } = process.env
const base = new URL(ISSUER).origin
const notifier = 'https://notify.example.com/'
const original = globalThis.fetch
globalThis.fetch = async (url, options) => {
  if (!String(url).startsWith(notifier)) return original(url, options)
  const answer = await original(LOGOUT_ADDRESS, options)
  console.log('answered', answer.status)
  return answer
}

const tables =
  'user session account verification jwks rateLimit oauthClient oauthAccessToken oauthRefreshToken oauthConsent ' +
  'oauthResource oauthClientResource oauthResourceClient oauthApplication oauthGrant oauthClientAssertion ' +
  'oauthAuthorizationCode oauthPushedRequest oauthDeviceCode'
const database = Object.fromEntries(tables.split(' ').map((name) => [name, []]))
const auth = betterAuth({
  baseURL: base,
  secret: 'a-secret-of-better-auth-0123456789-0123456789',
  database: memoryAdapter(database),
  emailAndPassword: { enabled: true },
  rateLimit: { enabled: false },
  disabledPaths: ['/token'],
  plugins: [
    jwt({ jwt: { issuer: ISSUER } }),
    oauthProvider({
      loginPage: '/sign-in',
      consentPage: '/consent',
      scopes: ['openid', 'profile', 'email', 'offline_access'],
      pairwiseSecret: 'a-secret-of-pairwise-names-0123456789',
      silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true }
    })
  ]
})
const user = { email: 'alice@example.com', password: 'password123' }
await auth.api.signUpEmail({ body: { ...user, name: 'Alice' } })
const cookiesOf = (answer) => answer.headers.getSetCookie()
const elsewhere = await auth.api.signInEmail({ body: user, asResponse: true })
const cookie = cookiesOf(elsewhere).map((line) => line.split(';')[0]).join('; ')

const made = {}
for (const { name, port, pairwise } of JSON.parse(CLIENTS)) {
  const public_address = `https://${name}.example.com`
  const client = await auth.api.adminCreateOAuthClient({
    headers: new Headers({ cookie }),
    body: {
      client_name: name,
      redirect_uris: [`${public_address}/callback`],
      post_logout_redirect_uris: [public_address],
      token_endpoint_auth_method: 'client_secret_basic',
      skip_consent: true,
      enable_end_session: true,
      backchannel_logout_uri: `${notifier}relays/server/backchannel-logout`,
      backchannel_logout_session_required: true,
      ...(pairwise ? { subject_type: 'pairwise' } : {})
    }
  })
  made[name] = { id: client.client_id, secret: client.client_secret }
  const row = database.oauthClient.find((each) => each.clientId === client.client_id)
  for (const column of ['redirectUris', 'postLogoutRedirectUris']) {
    row[column] = JSON.parse(JSON.stringify(row[column]).replaceAll(public_address, `http://localhost:${port}`))
  }
}

const handle = toNodeHandler(auth)
const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, base)
  if (url.pathname === '/sign-in') {
    const answer = await auth.api.signInEmail({ body: user, asResponse: true })
    for (const name of ['sig', 'exp', 'ba_iat', 'ba_pl']) url.searchParams.delete(name)
    response.writeHead(302, { 'set-cookie': cookiesOf(answer), location: `/api/auth/oauth2/authorize?${url.searchParams}` })
    return response.end()
  }
  if (url.pathname.endsWith('/.well-known/openid-configuration')) {
    response.writeHead(200, { 'content-type': 'application/json' })
    return response.end(JSON.stringify(await auth.api.getOpenIdConfig()))
  }
  if (url.pathname === '/own/revoke-sessions') {
    await auth.api.revokeSessions({ headers: new Headers({ cookie }) })
    return response.end()
  }
  handle(request, response)
})
console.log(JSON.stringify(made))
server.listen(Number(PORT), '127.0.0.1')
