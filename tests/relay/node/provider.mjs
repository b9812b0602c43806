// node-oidc-provider with its own pages. Its keys are in a file, which it reads once, as applications do.
import { readFileSync } from 'node:fs'
import { Provider } from 'oidc-provider'

const { ISSUER, PORT, KEYS, CLIENTS } = process.env
const provider = new Provider(ISSUER, {
  jwks: JSON.parse(readFileSync(KEYS)),
  clients: JSON.parse(CLIENTS),
  subjectTypes: ['public', 'pairwise'],
  pairwiseIdentifier: (_context, accountId, client) => `${accountId}-at-${client.clientId}`,
  features: { backchannelLogout: { enabled: true }, rpInitiatedLogout: { enabled: true } },
  cookies: { keys: ['a-key-of-cookies'] },
  pkce: { required: () => false },
  fetch: (url, options) => fetch(url, { ...options, dispatcher: undefined }) // else connections to loopback are cut
})
provider.proxy = true
provider.on('backchannel.success', (_context, client) => console.log('accepted', client.clientId))
provider.on('backchannel.error', (_context, error, client) => console.log('refused', client.clientId, error.message))
provider.listen(Number(PORT), '127.0.0.1')
