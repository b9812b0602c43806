// The signed-in user. The token stays in this tab's session storage, never in an address or a cookie.
import { begin, renew } from "./sign_in.js";
import { Problem, api } from "./api.js";
import { follow, followService, stopFollowing } from "./following.js";
import { state, update } from "./state.js";
import { unsettle } from "./tables.js";

const TOKEN = "notifier.token";
const EXPIRES = "notifier.expires"; // epoch seconds, of a token of the organisation's OpenID Provider
const RENEWED = "notifier.renewed"; // time of the last renewal, in milliseconds
const AHEAD = 60; // seconds before its expiry that a token is renewed
const NOT_AGAIN = 60_000; // milliseconds between renewals: a token that is refused at once must not cause a loop

export const keptToken = () => sessionStorage.getItem(TOKEN);

/** Use a token, or none: on the loopback interface the API may be open. */
export async function signIn(token, expires = Number(sessionStorage.getItem(EXPIRES)) || null) {
  update({ signIn: { ...state.signIn, busy: true, problem: "" } });
  try {
    const me = await api("whoami", { token });
    keep(token, expires);
    update({ token, me, expires, signIn: null });
    followService();
    follow();
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    forget();
    update({ token: null, me: null });
    await showSignIn(token || ![0, 401].includes(problem.status) ? problem.message : "");
  }
}

function keep(token, expires) {
  if (!token) return;
  sessionStorage.setItem(TOKEN, token);
  if (expires) sessionStorage.setItem(EXPIRES, expires);
}

function forget() {
  sessionStorage.removeItem(TOKEN);
  sessionStorage.removeItem(EXPIRES);
}

/** End the session of this tab, and remove all data that were shown. */
export async function signOut(problem = "") {
  forget();
  stopFollowing();
  unsettle();
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

/** Handle a refused token: renew it silently, if the provider permits. */
export async function refused(problem) {
  if (state.expires && !(await renewed())) return;
  if (state.me) await signOut(problem);
}

/** Renew the token before it expires, except during an action, since the page is reloaded. */
export function renewInTime() {
  if (!state.me || !state.expires || state.dialog || document.hidden) return;
  if (Date.now() / 1000 > state.expires - AHEAD) renewed();
}

/** Leave the page for a new token. Return true if renewal is not possible. */
async function renewed() {
  if (Date.now() - Number(sessionStorage.getItem(RENEWED)) < NOT_AGAIN) return true;
  const { oidc } = await api("sign-in", { token: null }).catch(() => ({ oidc: null }));
  if (!oidc?.authorization_endpoint) return true;
  sessionStorage.setItem(RENEWED, Date.now());
  await renew(oidc, location.hash);
  return false;
}
