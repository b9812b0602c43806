// The signed-in user. The token stays in this tab's session storage, never in an address or a cookie.
import { begin, renew } from "./sign_in.js";
import { Problem, api } from "./api.js";
import { loadPage, pollService, stopPolling } from "./following.js";
import { state, update } from "./state.js";
import { resetTables } from "./tables.js";

const TOKEN = "notifier.token";
const EXPIRES = "notifier.expires"; // epoch seconds, of a token of the organisation's OpenID Provider
const RENEWED = "notifier.renewed"; // time of the last renewal, in milliseconds
const RENEWAL_MARGIN_SECONDS = 60; // seconds before its expiry that a token is renewed
const MIN_RENEWAL_INTERVAL = 60_000; // milliseconds between renewals: a token that is refused at once must not cause a loop

export const readToken = () => sessionStorage.getItem(TOKEN);

/** Sign in with a token. Without a token this succeeds if the API requires none (on the loopback interface). */
export async function signIn(token, expires = Number(sessionStorage.getItem(EXPIRES)) || null) {
  update({ signIn: { ...state.signIn, busy: true, problem: "" } });
  try {
    const me = await api("whoami", { token });
    storeToken(token, expires);
    update({ token, me, expires, signIn: null });
    pollService();
    loadPage();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    removeToken();
    update({ token: null, me: null });
    await showSignIn(token || ![0, 401].includes(problem.status) ? problem.message : "");
  }
}

function storeToken(token, expires) {
  if (!token) return;
  sessionStorage.setItem(TOKEN, token);
  if (expires) sessionStorage.setItem(EXPIRES, expires);
}

function removeToken() {
  sessionStorage.removeItem(TOKEN);
  sessionStorage.removeItem(EXPIRES);
}

/** End the session of this tab, and remove all data that were shown. */
export async function signOut(problem = "") {
  removeToken();
  stopPolling();
  resetTables();
  const nothing = { data: null, problem: null, loading: false };
  update({
    token: null, me: null, service: null, lost: null, steps: new Map(), page: nothing, dialog: null,
    jobs: new Map(), retries: new Map(), notices: [],
  });
  await showSignIn(problem);
}

/** Show how to sign in: by the organisation's OpenID Provider where one is configured, and by a token. */
export async function showSignIn(problem) {
  update({ signIn: { problem, oidc: null } });
  const { oidc } = await api("sign-in", { token: null }).catch(() => ({ oidc: null }));
  if (!state.me) update({ signIn: { ...state.signIn, oidc } });
}

/** Go to the provider, which redirects back to the current page. */
export async function signInByProvider() {
  try {
    await begin(state.signIn.oidc, location.hash);
  } catch (error) {
    update({ signIn: { ...state.signIn, problem: error.message } });
  }
}

/** Renew a token that the API no longer accepts, or sign the user out with the problem. */
export async function handleRefusedToken(problem) {
  if (state.expires && !(await tryRenewal())) return;
  if (state.me) await signOut(problem);
}

/** Renew the token before it expires, except during an action, since the page is reloaded. */
export function renewBeforeExpiry() {
  if (!state.me || !state.expires || state.dialog || document.hidden) return;
  if (Date.now() / 1000 > state.expires - RENEWAL_MARGIN_SECONDS) tryRenewal();
}

/** Leave the page for a new token. Return true if this is not possible, so that the user must sign in. */
async function tryRenewal() {
  if (Date.now() - Number(sessionStorage.getItem(RENEWED)) < MIN_RENEWAL_INTERVAL) return true;
  const { oidc } = await api("sign-in", { token: null }).catch(() => ({ oidc: null }));
  if (!oidc?.authorization_endpoint) return true;
  sessionStorage.setItem(RENEWED, Date.now());
  await renew(oidc, location.hash);
  return false;
}
