// Serves the handler of @hellocoop/api for OpenID Provider Commands by Node's http. Arguments: CLIENT_ID, active users.
const http = require('http')
const api = require('@hellocoop/api')

const [clientId, ...users] = process.argv.slice(2)
api.configure({ client_id: clientId })
if (users.length) {
  // configure() of 2.5.2 ignores commandHandler
  api.configuration.commandHandler = (res, claims) => {
    if (claims.command !== 'invalidate') {
      res.status(400)
      return res.json({ error: 'unsupported_command' })
    }
    if (!users.includes(claims.sub)) {
      res.status(409)
      return res.json({ error: 'incompatible_state', account_state: 'unknown' })
    }
    console.log(JSON.stringify({ ended: claims }))
    return res.json({ account_state: 'active' })
  }
}

const server = http.createServer(async (req, res) => {
  let body = ''
  for await (const part of req) body += part
  let status = 200
  const answer = {
    status(code) { status = code; return answer },
    json(value) { res.writeHead(status, { 'Content-Type': 'application/json' }); res.end(JSON.stringify(value)) },
    send(text) { res.writeHead(status); res.end(String(text)) },
    redirect(to) { res.writeHead(302, { Location: to }); res.end() },
    setHeader(name, value) { res.setHeader(name, value) },
  }
  await api.router(
    { method: req.method, query: {}, body: Object.fromEntries(new URLSearchParams(body)), headers: () => req.headers },
    answer,
  )
})
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })))
