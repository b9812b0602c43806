// Sign-in at the organisation's OpenID Provider: code with PKCE, by a redirect of the whole page. No rendering here.

const KEY = "notifier.sign-in";

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const here = () => location.origin + location.pathname;

/** Leave the page to sign in. `config` is `oidc` of /v1/sign-in; `place` comes back from `finish`. */
export const begin = (config, place = null) => leave(config, place, false);

/** Leave the page for a new token, without a prompt. */
export const renew = (config, place = null) => leave(config, place, true);

async function leave(config, place, renewing) {
  if (!globalThis.crypto?.subtle) throw new Error("Sign-in requires https://.");
  const kept = { state: random(), nonce: random(), verifier: random(), issuer: config.issuer, place, renewing };
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(kept.verifier));
  sessionStorage.setItem(KEY, JSON.stringify(kept));
  const to = new URL(config.authorization_endpoint);
  const parameters = {
    response_type: "code", client_id: config.client_id, redirect_uri: here(), scope: config.scope, state: kept.state, nonce: kept.nonce,
    code_challenge: base64url(new Uint8Array(digest)), code_challenge_method: "S256", ...(renewing && { prompt: "none" }),
  };
  for (const [name, value] of Object.entries(parameters)) to.searchParams.set(name, value);
  location.assign(to);
}

/**
 * Finish a sign-in, once, when the page is loaded: null if the address has none, else `{token, expires_at, place}`, or
 * `{error, place, renewing}`. The sign-in is removed from the address.
 */
export async function finish() {
  const answered = new URLSearchParams(location.search);
  if (!answered.has("state") || !(answered.has("code") || answered.has("error"))) return null;
  const kept = JSON.parse(sessionStorage.getItem(KEY));
  sessionStorage.removeItem(KEY);
  history.replaceState(null, "", here() + location.hash);
  if (kept?.state !== answered.get("state")) return { error: "This sign-in did not begin in this tab. Sign in again.", place: null, renewing: false };
  const { place, renewing } = kept, failed = (error) => ({ error, place, renewing });
  if ((answered.get("iss") ?? kept.issuer) !== kept.issuer) return failed("The answer came from a different provider.");
  if (answered.has("error")) return failed(`The provider returned: ${answered.get("error").slice(0, 60)}.`);
  try {
    const answer = await fetch("/v1/sign-in/token", {
      method: "POST", headers: { Accept: "application/json", "Content-Type": "application/json" },
      body: JSON.stringify({ code: answered.get("code"), code_verifier: kept.verifier, redirect_uri: here(), nonce: kept.nonce }),
      credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer", mode: "same-origin", signal: AbortSignal.timeout(20_000),
    });
    const document = await answer.json();
    return answer.ok ? { token: document.access_token, expires_at: document.expires_at, place } : failed(document.title);
  } catch {
    return failed("The API is unreachable.");
  }
}
