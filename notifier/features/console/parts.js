// Components of several pages.
import { explain } from "./dialogs.js";
import { Clock, SafeText, formatAge, host, html, toPlainText } from "./text.js";
import { STATES } from "./words.js";
import { changeQuery, pageAddress } from "./addresses.js";
import { issuerCount } from "./api.js";
import { state, update } from "./state.js";

const TYPING_PAUSE = 250; // milliseconds after the last key until the filter applies

// ── clients ──

export const clientKey = (client) => `${client.iss} ${client.client_id}`;
export const clientHash = ({ iss, client_id }) => pageAddress("client", { iss, client_id });

/** A client's id, with its issuer if there are several. */
export function ClientName({ client, issuers = issuerCount(), limit = 36 }) {
  const name = html`<${SafeText} text=${client.client_id || "(whole event)"} limit=${limit} middle />`;
  const title = toPlainText(issuers > 1 ? `${client.client_id} ${host(client.iss)}` : client.client_id);
  return html`<span class="who" title=${title}>${client.client_id ? html`<a href=${clientHash(client)}>${name}</a>` : name}
    ${issuers > 1 && html`${" "}<span class="iss"><${SafeText} text=${host(client.iss)} limit=${60} /></span>`}</span>`;
}

export function StateChip({ state: name }) {
  const [word, tone, why] = STATES[name] ?? [name, "warn", ""];
  return html`<span class="chip ${tone}" title=${why}>${word}</span>`;
}

const REASON_WORDS = { unknown: "not registered" };

/** A name with a link to its section of the runbook. */
export const RunbookLink = ({ name }) => html`<button type="button" class="word" title="Meaning and remedy"
  onClick=${() => explain(name)}>${REASON_WORDS[name] ?? name}</button>`;

const ERROR_MEMBERS = ["error", "error_description"].map((name) => new RegExp(`"${name}"\\s*:\\s*"((?:[^"\\\\]|\\\\.)*)("?)`));

/** A text with the words of an OAuth error, whose JSON (RFC 6749, 5.2) may be cut anywhere, in place of its members. */
function errorWords(text) {
  const start = text.indexOf("{");
  if (start < 0) return text;
  const [error, description] = ERROR_MEMBERS.map((pattern) => {
    const [, value, end] = pattern.exec(text.slice(start)) ?? [];
    return value && `${value.replace(/\\(["\\/])/g, "$1")}${end ? "" : "…"}`;
  });
  const words = description && error ? `${description} (${error})` : description ?? error;
  return words ? `${text.slice(0, start)}${words}` : text;
}

/** The text of an answer. Its title has all of it. */
export const Quote = ({ text, limit = 200 }) =>
  html`<${SafeText} text=${errorWords(text ?? "")} whole=${text ?? ""} limit=${limit} className="quote" />`;

/** A client's answer: the reason, the status, and the start of the text. */
export function Answer({ row }) {
  const reason = row.reason ?? (row.kind === "delivered" ? row.kind : null);
  if (!reason) return html`<span class="dim">–</span>`;
  return html`<span class="answer"><${RunbookLink} name=${reason} />
    ${row.status != null && html`${" "}<b>${row.status}</b>`}
    ${row.text && html`${" "}<${Quote} text=${row.text} />`}</span>`;
}

/** A client's state. Of a deferred client also the cause, since its last answer does not have it; of a pause its end. */
export const ClientState = ({ client, name = client.state }) => html`<${StateChip} state=${name} />
  ${name === "put_off" && client.waits_for && html`${" "}<${RunbookLink} name=${client.waits_for} />`}
  ${name === "paused" && html`${" "}<span class="dim">until <${Clock} at=${client.paused_until} /></span>`}`;

/** A client's last answer, if it is not well. */
export function ClientReason({ client }) {
  const failedLast = client.last_failure && client.last_failure > (client.last_success ?? "");
  return html`<${Answer} row=${client.state === "well" && !failedLast ? {} : client} />`;
}

/** Since when a client is in trouble. */
export const troubledSince = (client) =>
  client.state === "put_off" ? client.deferred_at : client.failing_since ?? client.last_failure;

/** The start of an event's id, with a link to the event's results. */
export const EventLink = ({ id, whole = false }) =>
  id && html`<a href=${pageAddress("find", { event_id: id })}><code><${SafeText} text=${whole ? id : id.slice(0, 8)} whole=${id} /></code></a>`;

// ── filters ──

export const Filters = ({ children, label }) => html`<form class="filters" role="search" aria-label=${label}
  onSubmit=${(event) => event.preventDefault()}>${children}</form>`;

export const Choice = ({ name, label, value, options }) => html`<label>${label}
  <select value=${value ?? ""} onChange=${(event) => changeQuery({ [name]: event.target.value, skip: "" })}>
    ${options.map(([key, word]) => html`<option value=${key}>${word}</option>`)}</select></label>`;

const typing = new Map(); // by name: the typed text, and the timer until it applies

export function Search({ name, label, value = "", placeholder = "" }) {
  const take = (text) => () => {
    typing.set(name, { text, timer: null });
    changeQuery({ [name]: text.trim(), skip: "" });
  };
  const typed = ({ target: { value: text } }) => {
    clearTimeout(typing.get(name)?.timer);
    typing.set(name, { text, timer: setTimeout(take(text), TYPING_PAUSE) });
  };
  const { text = "", timer } = typing.get(name) ?? {};
  const shown = timer || text.trim() === value ? text : value; // the page is redrawn while the user types
  return html`<label>${label} <input type="search" value=${shown} title=${toPlainText(shown)} placeholder=${placeholder} onInput=${typed}
    spellcheck="false" autocomplete="off" maxlength="200" /></label>`;
}

/** The choice of an issuer, if there are several. */
export const IssuerChoice = ({ value }) => issuerCount() > 1 && html`<${Choice} name="iss" label="Issuer" value=${value}
  options=${[["", "all"], ...state.me.issuers_known.map((iss) => [iss, toPlainText(host(iss))])]} />`;

// ── notices ──

/** A problem, with each mistake that the API lists. */
export const Trouble = ({ problem, tone = "bad" }) => html`<p class="band ${tone}" role="alert"><${SafeText} text=${problem.message} />
  ${(problem.mistakes ?? []).map(({ path, text }) => html`<br /><code>${toPlainText(path)}</code> <${SafeText} text=${text} />`)}</p>`;

/** Replaces a view that an API without tokens refuses to pages: any site could request it, too. */
export const NeedsToken = ({ what, command }) => html`<p class="band" role="note">${what} needs a token: configure
  ${" "}<code>api.tokens_file</code>. Or, on the command line: <code>${command}</code></p>`;

export const LoadingNote = ({ children = "Loading …" }) =>
  !state.page.problem && html`<p class="dim" role="status">${children}</p>`;

/** The time of a list that is not polled, and the button that reloads it. */
export const ListingTime = ({ at, again, children }) => html`<span class="dim">As of <time datetime=${at}>${formatAge(at)} ago</time>.
  ${" "}${children}${" "}<button type="button" class="quiet" aria-disabled=${state.page.loading ? "true" : undefined}
    onClick=${() => state.page.loading || again()}>${state.page.loading ? "Refreshing …" : "Refresh"}</button></span>`;

const NOTICE_DURATION = { good: 8000, warn: 12_000, bad: 15_000 }; // milliseconds
let lastNoticeId = 0;

/** Show a notice in the corner, also to screen readers. */
export function notice(text, tone = "good") {
  const one = { text, tone, id: ++lastNoticeId };
  update({ notices: [...state.notices.slice(-3), one] });
  setTimeout(() => update({ notices: state.notices.filter((each) => each !== one) }), NOTICE_DURATION[tone]);
}
