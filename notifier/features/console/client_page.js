// One client: its state, its last answers, its registration, and the available actions.
import { Ago, Clock, SafeText, Until, formatAge, formatTime, counted, html, formatDuration, now, number, quoteJson } from "./text.js";
import { Answer, LoadingNote, StateChip, EventLink, clientKey } from "./parts.js";
import { CanaryButton } from "./canary.js";
import { KINDS } from "./words.js";
import { PauseButtons, PauseText } from "./pauses.js";
import { ResolvedButton } from "./resolved.js";
import { Plot } from "./plot.js";
import { Retry, retry, retryOf } from "./retries.js";
import { Table } from "./tables.js";
import { Troubles, answeredOf, isWhole } from "./overview_page.js";
import { api, hasScope } from "./api.js";
import { loadPage } from "./following.js";
import { pageAddress } from "./addresses.js";
import { state, update } from "./state.js";

const MINUTE = 60_000; // milliseconds
const MINUTES = 60;
const MAX_COUNTED = 10_000; // dead letters of all clients, which the API reads in half a second

// ── the sentence ──

/** Return the client's state: the tone of the band, a sentence, and its details. */
function describeClient({ client: c, left_out: leftOut }) {
  const pending = describePending(c);
  const since = c.failing_since ? ` since ${formatTime(c.failing_since)}` : "";
  const duration = c.failing_since ? `For ${formatAge(c.failing_since)}. ` : "";
  const next = formatNextAttempt(c);
  if (leftOut && !c.registered) return ["warn", `Left out of the registry: ${leftOut}`, pending];
  if (!c.registered) return ["warn", "This client is not registered.", pending];
  switch (c.state) {
    case "paused":
      return ["warn", html`Paused: <${PauseText} client=${c} />`, `${pending} ${next}`];
    case "rests":
    case "tried":
      return ["bad", `Unreachable${since}.`, `${duration}${next} ${pending}`];
    case "hangs":
      return ["bad", `Unresponsive${since}.`, `${duration}${next} ${pending}`];
    case "put_off":
      return ["warn", c.paused ? "Paused by the registry." : `Deferred: ${c.waits_for}.`, `${pending} ${next}`];
    case "fails":
      return ["warn", `Its last attempts failed${since}.`, `${duration}${pending} ${next}`];
    default:
      return c.tried ? ["good", "Healthy.", pending] : ["", "Not tried since the workers started.", pending];
  }
}

/** Return the number of pending deliveries, as far as it is known. */
function describePending(c) {
  const whole = isWhole();
  if (!c.waits) return whole ? "No pending deliveries." : `Pending deliveries are unknown: these are figures of ${answeredOf(state.service)}.`;
  return `${whole ? "" : "At least "}${counted(c.waits, "pending delivery", "pending deliveries")}${formatExpiry(c)}.`;
}

/** Return when the first pending delivery expires. A delivery without `sid` expires earlier than others. */
function formatExpiry({ expires }) {
  return expires ? `; the first expires in ${formatDuration((Date.parse(expires) - now()) / 1000)}` : "";
}

function formatNextAttempt({ next_attempt }) {
  if (!next_attempt) return "";
  const seconds = (Date.parse(next_attempt) - now()) / 1000;
  return seconds > 0.5 ? `Next attempt in ${formatDuration(seconds)}.` : "An attempt is due now.";
}

// ── the page ──

export function Client({ data }) {
  if (!data) return state.page.problem ? html`<p><a href="#/clients">All clients</a></p>` : html`<${LoadingNote} />`;
  const { client: c, registration } = data;
  const [tone, head, tail] = describeClient(data);
  const name = c.name && html`<${SafeText} text=${c.name} limit=${80} /> · `;
  const troubles = state.service?.troubles.filter((one) => one.client_id && clientKey(one) === clientKey(c)) ?? [];
  const leader = c.follows && html` · an address of <${SafeText} text=${c.follows} limit=${80} />`;
  return html`<p class="sub"><a href="#/clients">Clients</a> › ${name}<${SafeText} text=${c.iss} className="dim" />${leader}</p>
    <section class="band big ${tone}">
      <div><b aria-live="polite">${typeof head === "string" ? html`<${SafeText} text=${head} limit=${300} />` : head}</b> <span>${tail}</span>
        ${c.state !== "well" && c.reason && html`<p><${Answer} row=${c} /></p>`}</div>
      <${ClientActions} client=${c} /></section>
    ${troubles.length > 0 && html`<${Troubles} troubles=${troubles} workers=${state.service.workers} />`}
    <${RequestedPause} client=${c} />
    <section><h2>Attempts of the last hour</h2>
      <${Plot} bars=${barsOf(data.minutes)} width=${1} unit="min" label="an hour, a minute a bar" />
      <p class="dim note">Since the workers started: ${number(c.delivered)} delivered, ${number(c.dead)} given up,
        ${" "}${number(c.put_off)} deferred; last success <${Ago} at=${c.last_success} none="never" />.</p></section>
    <section><h2>Last answers</h2>
      <${Table} caption="Last answers" rows=${data.answers} keyOf=${(row) => `${row.worker} ${row.n}`}
        columns=${data.workers.length > 1 ? [...ANSWERS, AT] : ANSWERS} empty="No attempt since the workers started." /></section>
    ${data.workers.length > 1 && html`<section><h2>At each worker</h2>
      <${Table} caption="At each worker" rows=${data.workers} keyOf=${(row) => row.worker} columns=${WORKERS} /></section>`}
    ${registration && html`<section><h2>Registration</h2><${Registration} values=${registration} /></section>
      <${PauseInstructions} client=${c} />`}`;
}

/** Load the client. Its registration is read once, when the page is opened. `before`: the data of the last poll. */
export async function loadClient({ iss, client_id }, signal, before) {
  const query = { iss, client_id };
  const data = await api("client", { signal, query });
  countDeadLetters(query);
  if (!data.client.registered) return data;
  const registration = before?.registration ?? (await api("client/registration", { signal, query })).values;
  return { ...data, registration };
}

let dead = {}; // of the open client, by `key`: the `count` of its dead letters when there were `all` of all clients

/**
 * Count the client's dead letters, unless reading all dead letters would take seconds. The page does not wait for it.
 * Nothing is read again while the number of all dead letters stays. `age`: of the listing, a minute by default.
 */
async function countDeadLetters(query, age) {
  const { queues, at } = state.service ?? {};
  const all = queues?.dead?.ready, key = clientKey(query);
  const before = dead.key === key ? dead : { key };
  if (!all || all > MAX_COUNTED) dead = { key, count: all === 0 ? 0 : undefined };
  else if (age === 0 || (!before.isBusy && before.all !== all)) {
    const own = { ...before, isBusy: true };
    dead = own;
    const listing = await api("dead-letters/page", { query: { ...query, rows: 0, age } }).catch(() => null);
    if (dead !== own) return;
    const isNew = listing && Date.parse(listing.as_of) >= Date.parse(at);
    dead = { key, count: listing?.total ?? before.count, all: isNew ? all : undefined };
    update();
  }
}

/** Reload the page after a job, with a new count of the dead letters. */
export function refreshClient() {
  const { iss, client_id } = state.route.query;
  loadPage();
  countDeadLetters({ iss, client_id }, 0);
}

const ClientActions = ({ client }) => html`<div class="ways">
  ${client.registered && html`<${Retry} client=${client} /><${ResolvedButton} client=${client} />
    <${CanaryButton} client=${client} />`}
  <${PauseButtons} client=${client} />
  <a class="button" href=${pageAddress("waiting", { client_id: client.client_id, iss: client.iss })}>Pending</a>
  <a class="button" href=${pageAddress("dead", { client_id: client.client_id, iss: client.iss })}>Dead letters${
    dead.key === clientKey(client) && dead.count !== undefined && html`${" "}<b>${number(dead.count)}</b>`}</a></div>`;

/** Shows the deliveries that the last retry left pending since the client requested a pause, with a button to force. */
function RequestedPause({ client }) {
  const job = retryOf(client)?.job;
  if (!(job?.asked > 0) || !hasScope("repair")) return null;
  return html`<p class="band warn">${counted(job.asked, "delivery stays", "deliveries stay")}: the client requested a pause (Retry-After)
    until ${job.next_try ? formatTime(job.next_try) : "later"}, or it is paused.
    <button type="button" onClick=${() => retry(client, true)}>Retry these too</button></p>`;
}

/** Return a bar for each minute of the last hour: time, deliveries, failures. Minutes without attempts have zeros. */
function barsOf(minutes) {
  const countsOf = new Map(minutes.map(([seconds, ...counts]) => [seconds / 60, counts]));
  const lastMinute = Math.floor(now() / MINUTE);
  return Array.from({ length: MINUTES }, (_, index) => {
    const minute = lastMinute - MINUTES + 1 + index;
    return [minute * MINUTE, ...(countsOf.get(minute) ?? [0, 0])];
  });
}

// ── its registration ──

/** Lists the values in force, each with its origin. Defaults come last. */
function Registration({ values }) {
  const rows = [...values].sort((one, other) => (one.from === DEFAULT) - (other.from === DEFAULT));
  return html`<${Table} caption="Registration" rows=${rows} keyOf=${(row) => row.member} columns=${VALUES} empty="None." />`;
}

const DEFAULT = "default";
const inText = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const VALUES = [
  { head: "Member", cell: (row) => html`<code>${row.member}</code>` },
  { head: "Value", wide: true, cell: (row) => html`<${SafeText} text=${inText(row.value)} className=${row.from === DEFAULT && "dim"} />` },
  { head: "From", wide: true, cell: (row) => html`<${SafeText} text=${row.from} limit=${60} className="dim" />` },
];

/** Shows the lines that pause or resume the client in the registry's file, which the console does not edit. */
function PauseInstructions({ client }) {
  const lines = `- client_id: ${quoteJson(client.client_id)}\n  issuer: ${quoteJson(client.iss)}\n  notifier: {paused: true}`;
  const [head, what] = client.paused
    ? ["Resume it in the registry", "Remove the last line from its entry in the clients file"]
    : ["Pause it in the registry",
      "Add the last line to its entry in the clients file. If the file has no entry for it, add all these lines"];
  return html`<details><summary>${head}</summary>
    <p>${what}. Then reload all workers: <code>notifier reload -c notifier.yaml</code>. While the client is paused, its
      ${" "}logouts stay pending until they expire.</p>
    <pre class="json" tabindex="0"><${SafeText} text=${lines} lines limit=${3000} /></pre></details>`;
}

// ── its answers ──

const ANSWERS = [
  { head: "When", cell: (row) => html`<${Clock} at=${row.at} />` },
  { label: "Outcome", cell: (row) => html`<span class="chip ${KINDS[row.kind]}">${row.kind}</span>` },
  { head: "Answer", say: true, cell: (row) => html`<${Answer} row=${row} />` },
  { head: "Took", num: true, cell: (row) => `${number(Math.round(row.seconds * 1000))} ms` },
  { head: "Attempt", num: true, cell: (row) => row.attempt },
  { head: "Next", cell: (row) => html`<${Until} at=${row.next_due} />` },
  { head: "Event", cell: (row) => html`<${EventLink} id=${row.event_id} />` },
];
const AT = { head: "Worker", cell: (row) => html`<${SafeText} text=${row.worker} limit=${40} className="dim" />` };

const WORKERS = [
  { head: "Worker", cell: (row) => html`<${SafeText} text=${row.worker} limit=${60} />` },
  { head: "State", cell: (row) => html`<${StateChip} state=${row.state} />` },
  { head: "Pending", num: true, cell: (row) => number(row.waits) },
  { head: "Next", cell: (row) => html`<${Until} at=${row.next_attempt} />` },
  { head: "Delivered", num: true, cell: (row) => number(row.delivered) },
  { head: "Last answer", wide: true, cell: (row) => html`<${Answer} row=${row} />` },
];
