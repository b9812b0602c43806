// Components of several pages.
import { explain } from "./dialogs.js";
import { Said, ago, host, html, plain } from "./text.js";
import { STATES } from "./words.js";
import { ask, hash } from "./places.js";
import { issuerCount } from "./api.js";
import { state, update } from "./state.js";

const TYPED_FOR = 250; // milliseconds after the last key until the filter applies

// ── clients ──

export const clientKey = (client) => `${client.iss} ${client.client_id}`;
export const clientHash = ({ iss, client_id }) => hash("client", { iss, client_id });

/** A client's id, with its issuer if there are several. */
export function Who({ client, issuers = issuerCount() }) {
  const name = html`<${Said} text=${client.client_id || "(whole event)"} most=${80} />`;
  return html`<span class="who">${client.client_id ? html`<a href=${clientHash(client)}>${name}</a>` : name}
    ${issuers > 1 && html`${" "}<span class="iss"><${Said} text=${host(client.iss)} most=${60} /></span>`}</span>`;
}

export function Chip({ state: name }) {
  const [word, tone, why] = STATES[name] ?? [name, "warn", ""];
  return html`<span class="chip ${tone}" title=${why}>${word}</span>`;
}

/** A name with a link to its section of the runbook. */
export const Word = ({ name }) => html`<button type="button" class="word" title="Meaning and remedy"
  onClick=${() => explain(name)}>${name}</button>`;

/** A client's answer: the reason, the status, and the start of the text. */
export function Answer({ row }) {
  const reason = row.reason ?? (row.kind === "delivered" ? row.kind : null);
  if (!reason) return html`<span class="dim">–</span>`;
  return html`<span class="answer"><${Word} name=${reason} />
    ${row.status != null && html`${" "}<b>${row.status}</b>`}
    ${row.text && html`${" "}<${Said} text=${row.text} most=${200} className="quote" />`}</span>`;
}

const HELD_BACK = { paused: "paused in the registry", unknown: "not registered" };

/** Why a client fails or is deferred. */
export function Why({ client }) {
  if (client.state === "put_off" && client.waits_for) {
    const text = HELD_BACK[client.waits_for] ?? client.text;
    return html`<span class="answer"><${Word} name=${client.waits_for} />
      ${text && html`${" "}<${Said} text=${text} most=${120} className="quote" />`}</span>`;
  }
  const failedLast = client.last_failure && client.last_failure > (client.last_success ?? "");
  return html`<${Answer} row=${client.state === "well" && !failedLast ? {} : client} />`;
}

/** Since when a client is in trouble. */
export const troubledSince = (client) =>
  client.state === "put_off" ? client.deferred_at : client.failing_since ?? client.last_failure;

/** The start of an event's id, with a link to the event's results. */
export const EventLink = ({ id, whole = false }) =>
  id && html`<a href=${hash("find", { event_id: id })}><code><${Said} text=${whole ? id : id.slice(0, 8)} /></code></a>`;

// ── filters ──

export const Filters = ({ children, label }) => html`<form class="filters" role="search" aria-label=${label}
  onSubmit=${(event) => event.preventDefault()}>${children}</form>`;

export const Choice = ({ name, label, value, options }) => html`<label>${label}
  <select value=${value ?? ""} onChange=${(event) => ask({ [name]: event.target.value, skip: "" })}>
    ${options.map(([key, word]) => html`<option value=${key}>${word}</option>`)}</select></label>`;

const typing = new Map(); // by name: the typed text, and the timer until it applies

export function Search({ name, label, value = "", placeholder = "" }) {
  const take = (text) => () => {
    typing.set(name, { text, timer: null });
    ask({ [name]: text.trim(), skip: "" });
  };
  const typed = ({ target: { value: text } }) => {
    clearTimeout(typing.get(name)?.timer);
    typing.set(name, { text, timer: setTimeout(take(text), TYPED_FOR) });
  };
  const { text = "", timer } = typing.get(name) ?? {};
  const shown = timer || text.trim() === value ? text : value; // the page is redrawn while the user types
  return html`<label>${label} <input type="search" value=${shown} placeholder=${placeholder} onInput=${typed}
    spellcheck="false" autocomplete="off" maxlength="200" /></label>`;
}

/** The choice of an issuer, if there are several. */
export const IssuerChoice = ({ value }) => issuerCount() > 1 && html`<${Choice} name="iss" label="Issuer" value=${value}
  options=${[["", "all"], ...state.me.issuers_known.map((iss) => [iss, plain(host(iss))])]} />`;

// ── notices ──

/** A problem, with each mistake that the API lists. */
export const Trouble = ({ problem, tone = "bad" }) => html`<p class="band ${tone}" role="alert"><${Said} text=${problem.message} />
  ${(problem.mistakes ?? []).map(({ path, text }) => html`<br /><code>${plain(path)}</code> <${Said} text=${text} />`)}</p>`;

/** Replaces a view that an API without tokens refuses to pages: any site could request it, too. */
export const NeedsToken = ({ what, command }) => html`<p class="band" role="note">${what} needs a token: configure
  ${" "}<code>api.tokens_file</code>. Or, on the command line: <code>${command}</code></p>`;

export const Asking = ({ children = "Loading …" }) =>
  !state.page.problem && html`<p class="dim" role="status">${children}</p>`;

/** The time of a list that is not polled, and the button that reloads it. */
export const AsOf = ({ at, again, children }) => html`<span class="dim">As of <time datetime=${at}>${ago(at)} ago</time>.
  ${" "}${children}${" "}<button type="button" class="quiet" aria-disabled=${state.page.loading ? "true" : undefined}
    onClick=${() => state.page.loading || again()}>${state.page.loading ? "Refreshing …" : "Refresh"}</button></span>`;

const NOTICED_FOR = { good: 8000, warn: 12_000, bad: 15_000 }; // milliseconds
let noticed = 0;

/** Show a notice in the corner, also to screen readers. */
export function notice(text, tone = "good") {
  const one = { text, tone, id: ++noticed };
  update({ notices: [...state.notices.slice(-3), one] });
  setTimeout(() => update({ notices: state.notices.filter((each) => each !== one) }), NOTICED_FOR[tone]);
}
