// Sign-in at the organisation's OpenID Provider: code with PKCE, by a redirect of the whole page. No rendering here.

const KEY = "notifier.sign-in";

const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const redirectUri = () => location.origin + location.pathname;

/** Leave the page to sign in. `config`: `oidc` of /v1/sign-in. `place`: an address that `finish` returns. */
export const begin = (config, place = null) => redirectToProvider(config, place, false);

/** Leave the page for a new token, without a prompt. */
export const renew = (config, place = null) => redirectToProvider(config, place, true);

async function redirectToProvider(config, place, isRenewal) {
  if (!globalThis.crypto?.subtle) throw new Error("Sign-in requires https://.");
  const pending = { state: random(), nonce: random(), verifier: random(), issuer: config.issuer, place, isRenewal };
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(pending.verifier));
  sessionStorage.setItem(KEY, JSON.stringify(pending));
  const to = new URL(config.authorization_endpoint);
  const parameters = {
    response_type: "code", client_id: config.client_id, redirect_uri: redirectUri(), scope: config.scope, state: pending.state, nonce: pending.nonce,
    code_challenge: base64url(new Uint8Array(digest)), code_challenge_method: "S256", ...(isRenewal && { prompt: "none" }),
  };
  for (const [name, value] of Object.entries(parameters)) to.searchParams.set(name, value);
  location.assign(to);
}

/**
 * Finish a sign-in, once, when the page is loaded: null if the address has none, else `{token, expires_at, place}`, or
 * `{error, place, isRenewal}`. The sign-in is removed from the address.
 */
export async function finish() {
  const response = new URLSearchParams(location.search);
  if (!response.has("state") || !(response.has("code") || response.has("error"))) return null;
  const pending = JSON.parse(sessionStorage.getItem(KEY));
  sessionStorage.removeItem(KEY);
  history.replaceState(null, "", redirectUri() + location.hash);
  if (pending?.state !== response.get("state")) return { error: "This sign-in did not begin in this tab. Sign in again.", place: null, isRenewal: false };
  const { place, isRenewal } = pending, failed = (error) => ({ error, place, isRenewal });
  if ((response.get("iss") ?? pending.issuer) !== pending.issuer) return failed("The answer came from a different provider.");
  if (response.has("error")) return failed(`The provider returned: ${response.get("error").slice(0, 60)}.`);
  try {
    const answer = await fetch("/v1/sign-in/token", {
      method: "POST", headers: { Accept: "application/json", "Content-Type": "application/json" },
      body: JSON.stringify({ code: response.get("code"), code_verifier: pending.verifier, redirect_uri: redirectUri(), nonce: pending.nonce }),
      credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer", mode: "same-origin", signal: AbortSignal.timeout(20_000),
    });
    const document = await answer.json();
    return answer.ok ? { token: document.access_token, expires_at: document.expires_at, place } : failed(document.title);
  } catch {
    return failed("The API is unreachable.");
  }
}
