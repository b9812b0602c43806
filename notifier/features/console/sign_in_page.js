// The sign-in: by the organisation's OpenID Provider where one is configured, else by a token of the API.
import { SafeText, host, html } from "./text.js";
import { signIn, signInByProvider } from "./session.js";
import { state } from "./state.js";

function submit(event) {
  event.preventDefault();
  const token = new FormData(event.target).get("token").trim();
  if (token) signIn(token, null);
}

export function SignIn() {
  const attempt = state.signIn;
  if (!attempt) return html`<main class="sign-in"><p class="dim" role="status">…</p></main>`;
  const { oidc, problem, busy } = attempt;
  const byToken = html`<${ByToken} busy=${busy} />`;
  return html`<main class="sign-in"><div class="box">
    <h1><img src="icon.svg" alt="" width="36" height="36" /> notifier</h1>
    ${problem && html`<p class="band bad" role="alert"><${SafeText} text=${problem} /></p>`}
    ${oidc && html`<${ByProvider} oidc=${oidc} />`}
    ${oidc ? html`<details><summary>With an API token</summary>${byToken}</details>` : byToken}
  </div></main>`;
}

function ByProvider({ oidc }) {
  const name = html`<${SafeText} text=${host(oidc.issuer)} limit=${60} />`;
  if (oidc.authorization_endpoint) {
    return html`<button type="button" class="main" onClick=${signInByProvider}>Sign in at ${name}</button>`;
  }
  return html`<p class="band warn" role="alert">Sign-in at ${name} is unavailable: <${SafeText} text=${oidc.problem} /></p>`;
}

const ByToken = ({ busy }) => html`<form onSubmit=${submit} autocomplete="off">
  <label for="token">API token</label>
  <input id="token" name="token" type="password" required spellcheck="false" autocomplete="off" aria-describedby="about"
    autofocus />
  <button class="main" disabled=${busy}>${busy ? "Signing in …" : "Sign in"}</button>
  <p id="about" class="dim">It needs the scope <code>read</code>; with <code>repair</code> you may also retry, replay and discard.
    It stays in this tab and is removed when you close the tab.</p></form>`;
