// node-oidc-provider: its own sending, as `end_session` does it for each client of a session: look the client up, then
// `client.backchannelLogout(sub, sid)`, all clients of a session at once. So many sessions at a time, out of memory:
// there is no queue, and nothing is retried. Its modules are where PEER_MODULES says.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const settings = JSON.parse(readFileSync(process.env.PEER_SETTINGS));
const require = createRequire(join(process.env.PEER_MODULES, 'package.json'));
const { default: Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const provider = new Provider(settings.iss, {
  clients: Object.entries(settings.clients).map(([id, uri]) => ({
    client_id: id,
    client_secret: 'not-used',
    redirect_uris: ['https://client.example.com/callback'],
    id_token_signed_response_alg: settings.alg,
    backchannel_logout_uri: uri,
    backchannel_logout_session_required: true, // so that the token has the sid
  })),
  jwks: { keys: [settings.jwk] },
  features: { backchannelLogout: { enabled: true }, devInteractions: { enabled: false } },
  // It sends nothing to a special-use address such as ours by itself; this is how one is allowed to.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
});

const events = readFileSync(settings.events, 'utf8').trim().split('\n').map((line) => JSON.parse(line)).values();

async function tell(id, { sub, sid }) {
  const client = await provider.Client.find(id);
  await client.backchannelLogout(sub, sid);
}

async function endSessions() {
  for (const event of events) {
    await Promise.all(event.clients.map((id) => tell(id, event)));
  }
}

await Promise.all(Array.from({ length: settings.events_at_once }, endSessions));
setInterval(() => {}, 60_000); // until it is killed: what it has used of the core is still to be read
