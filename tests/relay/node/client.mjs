// A relying party by express-openid-connect. SIGUSR2 stops its listener, and starts it again; sessions stay.
import express from 'express'
import openid from 'express-openid-connect'

const { ISSUER, PORT, CLIENT_ID, CLIENT_SECRET, ALGORITHM } = process.env
const app = express()
const logouts = new Map()
const store = {
  get: (id, done) => done(null, logouts.get(id)),
  set: (id, logout, done) => done(null, void logouts.set(id, logout)),
  destroy: (id, done) => done(null, void logouts.delete(id))
}
app.use(
  openid.auth({
    issuerBaseURL: ISSUER,
    baseURL: `http://localhost:${PORT}`,
    clientID: CLIENT_ID,
    clientSecret: CLIENT_SECRET,
    clientAuthMethod: 'client_secret_basic',
    secret: 'a-secret-of-its-cookies-0123456789',
    authRequired: false,
    idpLogout: true,
    idTokenSigningAlg: ALGORITHM,
    authorizationParams: { response_type: 'code', scope: 'openid' },
    session: { cookie: { sameSite: 'Lax' } },
    transactionCookie: { sameSite: 'Lax' },
    backchannelLogout: { store }
  })
)
app.get('/', (_request, response) => response.end())
app.get('/me', (request, response) =>
  request.oidc.isAuthenticated() ? response.json(request.oidc.idTokenClaims) : response.status(401).end()
)
app.use((error, _request, response, _next) => {
  console.log(error.message, error.error_description)
  response.status(error.statusCode ?? 500).json({ error: error.message })
})
const listen = () => app.listen(Number(PORT), '127.0.0.1')
let server = listen()
setInterval(() => {}, 1 << 30) // it lives without a listener too
process.on('SIGUSR2', () => {
  if (server.listening) {
    server.close()
    server.closeAllConnections()
  } else {
    server = listen()
  }
})
