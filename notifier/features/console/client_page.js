// One client: its state, its last answers, its registration, and the available actions.
import { Ago, Clock, Said, Until, ago, clock, counted, html, inWords, now, number, quoted } from "./text.js";
import { Answer, Asking, Chip, EventLink } from "./parts.js";
import { CanaryButton } from "./canary.js";
import { KINDS } from "./words.js";
import { MendedButton } from "./mended.js";
import { Plot } from "./plot.js";
import { Retry, retry, retryOf } from "./retries.js";
import { Table } from "./tables.js";
import { api, may } from "./api.js";
import { hash } from "./places.js";
import { state } from "./state.js";

const MINUTE = 60_000; // milliseconds
const MINUTES = 60;

// ── the sentence ──

function sentence({ client: c, left_out: leftOut }) {
  const some = `${counted(c.waits, "pending delivery", "pending deliveries")}${expiry(c)}.`;
  const waits = c.waits ? some : "No pending deliveries.";
  const since = c.failing_since ? ` since ${clock(c.failing_since)}` : "";
  const lasts = c.failing_since ? `For ${ago(c.failing_since)}. ` : "";
  if (!c.registered) return ["warn", leftOut ? `Left out of the registry: ${leftOut}` : "This client is not registered.", waits];
  switch (c.state) {
    case "rests":
    case "tried":
      return ["bad", `Unreachable${since}.`, `${lasts}${nextTry(c)} ${waits}`];
    case "hangs":
      return ["bad", `Unresponsive${since}.`, `${lasts}${nextTry(c)} ${waits}`];
    case "put_off":
      return ["warn", c.paused ? "Paused by the registry." : `Deferred: ${c.waits_for}.`, `${waits} ${nextTry(c)}`];
    case "fails":
      return ["warn", `Its last attempts failed${since}.`, `${lasts}${waits} ${nextTry(c)}`];
    default:
      return c.tried ? ["good", "Healthy.", waits] : ["", "Not tried since the workers started.", waits];
  }
}

/** When the first pending delivery expires. A delivery without `sid` expires earlier. */
function expiry({ expires }) {
  return expires ? `; the first expires in ${inWords((Date.parse(expires) - now()) / 1000)}` : "";
}

function nextTry({ next_attempt }) {
  if (!next_attempt) return "";
  const left = (Date.parse(next_attempt) - now()) / 1000;
  return left > 0.5 ? `Next attempt in ${inWords(left)}.` : "An attempt is due now.";
}

// ── the page ──

export function Client({ data }) {
  if (!data) return state.page.problem ? html`<p><a href="#/clients">All clients</a></p>` : html`<${Asking} />`;
  const { client: c, registration } = data;
  const [tone, head, tail] = sentence(data);
  const name = c.name && html`<${Said} text=${c.name} most=${80} /> · `;
  return html`<p class="sub"><a href="#/clients">Clients</a> › ${name}<${Said} text=${c.iss} className="dim" /></p>
    <section class="band big ${tone}">
      <div><b aria-live="polite"><${Said} text=${head} most=${300} /></b> <span>${tail}</span>
        ${c.state !== "well" && c.reason && html`<p><${Answer} row=${c} /></p>`}</div>
      <${Ways} client=${c} /></section>
    <${RequestedWait} client=${c} />
    <section><h2>Attempts of the last hour</h2>
      <${Plot} bars=${bars(data.minutes)} width=${1} unit="min" label="an hour, a minute a bar" />
      <p class="dim note">Since the workers started: ${number(c.delivered)} delivered, ${number(c.dead)} given up,
        ${" "}${number(c.put_off)} deferred; last success <${Ago} at=${c.last_success} none="never" />.</p></section>
    <section><h2>Last answers</h2>
      <${Table} caption="Last answers" rows=${data.answers} keyOf=${(row) => `${row.worker} ${row.n}`}
        columns=${data.workers.length > 1 ? [...ANSWERS, AT] : ANSWERS} empty="No attempt since the workers started." /></section>
    ${data.workers.length > 1 && html`<section><h2>At each worker</h2>
      <${Table} caption="At each worker" rows=${data.workers} keyOf=${(row) => row.worker} columns=${WORKERS} /></section>`}
    ${registration && html`<section><h2>Registration</h2><${Registration} values=${registration} /></section>
      <${Pausing} client=${c} />`}`;
}

/** The registration is read when the page is opened, and not polled. */
export async function loadClient({ iss, client_id }, signal, before) {
  const query = { iss, client_id };
  const data = await api("client", { signal, query });
  if (!data.client.registered) return data;
  const registration = before?.registration ?? (await api("client/registration", { signal, query })).values;
  return { ...data, registration };
}

const Ways = ({ client }) => html`<div class="ways">
  ${client.registered && html`<${Retry} client=${client} /><${MendedButton} client=${client} />
    <${CanaryButton} client=${client} />`}
  <a class="button" href=${hash("waiting", { client_id: client.client_id, iss: client.iss })}>Pending</a>
  <a class="button" href=${hash("dead", { client_id: client.client_id, iss: client.iss })}>Dead letters</a></div>`;

/** The deliveries that the last retry left pending, as the client asked to wait. */
function RequestedWait({ client }) {
  const job = retryOf(client)?.job;
  if (!(job?.asked > 0) || !may("repair")) return null;
  return html`<p class="band warn">${counted(job.asked, "delivery stays", "deliveries stay")}: the client requested a wait (Retry-After)
    until ${job.next_try ? clock(job.next_try) : "later"}, or it is paused in the registry.
    <button type="button" onClick=${() => retry(client, true)}>Retry these too</button></p>`;
}

function bars(minutes) {
  const counts = new Map(minutes.map(([at, ...each]) => [at / 60, each]));
  const last = Math.floor(now() / MINUTE);
  return Array.from({ length: MINUTES }, (_, nth) => {
    const at = last - MINUTES + 1 + nth;
    return [at * MINUTE, ...(counts.get(at) ?? [0, 0])];
  });
}

// ── its registration ──

/** Each current value with its origin. Defaults come last. */
function Registration({ values }) {
  const rows = [...values].sort((one, other) => (one.from === DEFAULT) - (other.from === DEFAULT));
  return html`<${Table} caption="Registration" rows=${rows} keyOf=${(row) => row.member} columns=${VALUES} empty="None." />`;
}

const DEFAULT = "default";
const inText = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const VALUES = [
  { head: "Member", cell: (row) => html`<code>${row.member}</code>` },
  { head: "Value", wide: true, cell: (row) => html`<${Said} text=${inText(row.value)} className=${row.from === DEFAULT && "dim"} />` },
  { head: "From", cell: (row) => html`<${Said} text=${row.from} most=${60} className="dim" />` },
];

/** Clients are not edited here: the registry is the source. These lines go into its file. */
function Pausing({ client }) {
  const lines = `- client_id: ${quoted(client.client_id)}\n  issuer: ${quoted(client.iss)}\n  notifier: {paused: true}`;
  const [head, what] = client.paused
    ? ["Resume it", "Remove the last line from its entry in the clients file"]
    : ["Pause it",
      "Add the last line to its entry in the clients file. If the file has no entry for it, add all these lines"];
  return html`<details><summary>${head}</summary>
    <p>${what}. Then reload all workers: <code>notifier reload -c notifier.yaml</code>. While the client is paused, its
      ${" "}logouts stay pending until they expire.</p>
    <pre class="json" tabindex="0"><${Said} text=${lines} lines most=${3000} /></pre></details>`;
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
const AT = { head: "Worker", cell: (row) => html`<${Said} text=${row.worker} most=${40} className="dim" />` };

const WORKERS = [
  { head: "Worker", cell: (row) => html`<${Said} text=${row.worker} most=${60} />` },
  { head: "State", cell: (row) => html`<${Chip} state=${row.state} />` },
  { head: "Pending", num: true, cell: (row) => number(row.waits) },
  { head: "Next", cell: (row) => html`<${Until} at=${row.next_attempt} />` },
  { head: "Delivered", num: true, cell: (row) => number(row.delivered) },
  { head: "Last answer", wide: true, cell: (row) => html`<${Answer} row=${row} />` },
];
