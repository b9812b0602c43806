// The overview: the state of the service, the clients that do not receive logouts, since when, and the remedy.
import { Ago, SafeText, Until, counted, host, html, number, toPlainText, rate, sum } from "./text.js";
import { LoadingNote, ClientName, ClientReason, ClientState, clientKey, troubledSince } from "./parts.js";
import { MILD, TROUBLES } from "./words.js";
import { Plot } from "./plot.js";
import { ReadSources } from "./sources.js";
import { ResumeButton } from "./pauses.js";
import { Retry, retryOf } from "./retries.js";
import { Table, holdRows, keepRowOrder } from "./tables.js";
import { explain } from "./dialogs.js";
import { hasScope, coversAllIssuers } from "./api.js";
import { state } from "./state.js";

const SLOTS = 180; // of five seconds: 15 minutes
const QUEUE_TROUBLES = ["queue", "publishing_blocked"];
const MAX_UNRECORDED = 20; // deliveries: up to this number may be pending for clients without a recorded state

// ── the sentence ──

export const waitingIn = ({ waits }) => waits.all;
/** The number of clients that do not receive logouts, without those deferred by notifier. */
export const failingOf = ({ states }) => states.rests + states.tried + states.hangs + states.fails;
const are = (count) => (count === 1 ? "is" : "are");

/** The queue's own trouble, which precedes all others; undefined without one. */
export const queueTrouble = ({ troubles }) => troubles.find(({ kind }) => QUEUE_TROUBLES.includes(kind));
/** The problems: their number for badges and the sentence, and whether one delays logouts. */
export const problemsOf = ({ troubles }) => ({ count: troubles.length, severe: troubles.some(({ kind }) => !MILD.has(kind)) });
/** How many workers answered: "2 of 3 workers". Without the broker nobody can count them. */
export const answeredOf = ({ workers: { answered, seen } }) =>
  seen ? `${answered} of ${counted(Math.max(seen, answered), "worker")}` : `${counted(answered, "worker")}, others unknown`;
export const allAnswered = ({ workers: { answered, seen } }) => seen > 0 && answered >= seen;

/** Return the state of the service: the tone of the band, a sentence, and its numbers. */
function describeService(service) {
  const { states, troubles, queues, workers } = service;
  const waits = waitingIn(service);
  const queueFault = queueTrouble(service);
  if (queueFault) {
    const known = `The figures below are of ${answeredOf(service)}.`;
    return ["bad", `${TROUBLES[queueFault.kind]}.`, `${toPlainText(queueFault.text)}. ${known}`];
  }
  if (!workers.answered) return describeNoAnswer(workers);
  const isIdle = workers.each.every(({ consuming }) => consuming === false);
  if (isIdle && allAnswered(service)) return describeNoConsumer(service, waits + (queues.events?.ready ?? 0));
  const { count: problemCount, severe } = problemsOf(service);
  const rates = [`${rate(service.rates.delivered)} logouts a second are delivered`];
  if (waits) rates.push(`${number(waits)} ${are(waits)} pending and retried automatically`);
  const dead = queues.dead?.ready;
  if (dead) rates.push(`${number(dead)} ${dead === 1 ? "was" : "were"} given up`);
  const numbers = `${rates.join("; ")}.`;
  const unreachable = states.rests + states.tried;
  const rejected = sum(troubles.map(({ kind, count }) => (kind === "events_refused" ? count : 0)));
  const problems = [
    rejected && `${counted(rejected, "event")} ${are(rejected)} rejected`,
    unreachable && `${counted(unreachable, "client")} ${are(unreachable)} unreachable`,
    states.hangs && `${counted(states.hangs, "client")} ${are(states.hangs)} unresponsive`,
    states.fails && `${counted(states.fails, "client")} ${are(states.fails)} failing`,
    states.put_off && `${counted(states.put_off, "client")} ${are(states.put_off)} deferred`,
    states.paused && `${counted(states.paused, "client")} ${are(states.paused)} paused`,
    problemCount && counted(problemCount, "problem"),
  ].filter(Boolean);
  const tone = unreachable || states.hangs || severe ? "bad" : "warn";
  if (problems.length) return [tone, `${problems.join(", ")}.`, numbers];
  if (!allAnswered(service)) return ["warn", `Only ${answeredOf(service)} answered.`, `They report no problem. ${numbers}`];
  return ["good", "No problems.", numbers];
}

function describeNoAnswer({ seen }) {
  const silent = `${counted(seen, "worker does", "workers do")} not answer.`;
  return ["bad", "No worker answers.", seen ? silent : "Nothing is delivered until a worker is started: notifier run."];
}

function describeNoConsumer({ workers }, pending) {
  const problem = workers.each.map((worker) => worker.problem).find(Boolean);
  const answers = counted(workers.answered, "worker answers", "workers answer");
  const details = [`${answers}, but none takes events yet${problem ? `: ${toPlainText(problem)}` : "."}`];
  if (pending) details.push(`${number(pending)} pending.`);
  return ["bad", "Nothing is delivered: no worker consumes the queue.", details.join(" ")];
}

// ── the page ──

export function Overview() {
  const { service } = state;
  if (!service) return html`<${LoadingNote} />`;
  const [tone, head, tail] = describeService(service);
  const troubles = steadyTroubles(service.troubles);
  const queues = html`<${Queues} queues=${service.queues} />`;
  return html`<section class="band big head ${state.lost ? "" : tone}" title="${head} ${tail}"><b aria-live="polite">${head}</b> <span>${tail}</span></section>
    <div class="over">${troubles.length ? html`<${Troubles} troubles=${troubles} workers=${service.workers} />` : queues}
      <section><h2>Last 15 minutes</h2>
        <${Plot} bars=${barsOf(service)} width=${service.timeline.step} unit="s" label="15 min" /></section></div>
    <${TroubledClients} service=${service} />
    <div class="columns">${troubles.length > 0 && queues}<${Workers} service=${service} />
      ${service.relays.length > 0 && html`<${Relays} relays=${service.relays} />`}</div>`;
}

let troublesBefore = [];

/** Return the troubles. While the pointer is in the table below them, they do not change, so that it does not move. */
function steadyTroubles(troubles) {
  if (!state.pointed) troublesBefore = troubles;
  return troublesBefore;
}

/** Return a bar for each step of the last 15 minutes: time, delivered, failed, given up. */
function barsOf({ timeline: { step: stepSeconds, now: lastStep, series } }) {
  const columns = ["delivered", "failed", "dead"].map((name) => series.indexOf(name));
  return Array.from({ length: SLOTS }, (_, index) => {
    const step = lastStep - SLOTS + 1 + index;
    return [step * stepSeconds * 1000, ...columns.map((column) => state.steps.get(step)?.[column] ?? 0)];
  });
}

// ── internal troubles ──

const SOURCE_KINDS = new Set(["registry_source_failed", "registry_loss_held", "registry_source_differs"]);
const COUNTED = {
  events_refused: ["event", "events", "refused"],
  publisher_refused: ["request", "requests", "refused"],
  unknown_issuer: ["message", "messages", "deferred"],
  unknown_version: ["message", "messages", "deferred"],
  session_only: ["delivery", "deliveries", "skipped"],
};
const countedOf = ({ kind, count }) => {
  const [one, many, verb] = COUNTED[kind] ?? ["delivery", "deliveries", "deferred"];
  return `${counted(count, one, many)} ${verb}`;
};
const troubleKey = (one) => `${one.kind} ${clientKey(one)} ${one.subject}`;
const MAX_OPEN_TROUBLES = 5; // the most urgent; others are closed, so that the clients below are on the screen

export function Troubles({ troubles, workers }) {
  const list = (some) => html`<ul class="troubles">
    ${some.map((one) => html`<${Trouble} key=${troubleKey(one)} one=${one} workers=${workers} />`)}</ul>`;
  const more = troubles.slice(MAX_OPEN_TROUBLES);
  return html`<section><h2>Problems</h2>${list(troubles.slice(0, MAX_OPEN_TROUBLES))}
    ${more.length > 0 && html`<details class="more-troubles"><summary>${counted(more.length, "more problem")}</summary>${list(more)}</details>`}</section>`;
}

function Trouble({ one, workers }) {
  const facts = [
    one.since && html`since <${Ago} at=${one.since} suffix="" />`,
    one.count > 0 && countedOf(one),
    workers.answered > 1 && `at ${one.workers.length} of ${workers.answered} workers`,
  ].filter(Boolean);
  const [tone, word] = MILD.has(one.kind) ? ["warn", "warning"] : ["bad", "error"];
  return html`<li class=${tone}>
    <div title=${toPlainText(one.text)}><span class="chip ${tone}">${word}</span>${" "}<b>${TROUBLES[one.kind] ?? one.kind.replaceAll("_", " ")}</b>${about(one)}
      <p>${facts.map((fact, nth) => html`${nth ? ", " : ""}${fact}`)}${facts.length ? ": " : ""}<${SafeText} text=${one.text} /></p></div>
    <div class="ways">
      ${one.explained && html`<button type="button" onClick=${() => explain(one.explained)}>What to do</button>`}
      ${SOURCE_KINDS.has(one.kind) && hasScope("repair") && coversAllIssuers() && html`<${ReadSources} />`}
      ${one.kind.startsWith("signing") && html`<a class="button" href="#/keys">Keys</a>`}</div></li>`;
}

function about(one) {
  if (one.client_id) return html`: <${ClientName} client=${one} />`;
  return html`${one.subject && html`: <code><${SafeText} text=${one.subject} limit=${16} /></code>`}
    ${one.iss && html`${" "}<span class="iss"><${SafeText} text=${host(one.iss)} /></span>`}`;
}

// ── clients ──

const ClientWithName = ({ client }) => html`<${ClientName} client=${client} />
  ${client.name && html`<span class="dim name"><${SafeText} text=${client.name} limit=${60} /></span>`}`;

/** The first columns of every list of clients. */
export const CLIENT_COLUMNS = [
  { head: "Client", wide: true, cell: (c) => html`<${ClientWithName} client=${c} />` },
  { head: "State", cell: (c) => html`<${ClientState} client=${c} name=${stateOf(c)} />` },
  { head: "Since", cell: (c) => html`<${Ago} at=${c.state === "well" ? null : troubledSince(c)} suffix="" />` },
  { head: "Last answer", say: true, cell: (c) => html`<${ClientReason} client=${c} />` },
  { head: "Pending", num: true, cell: (c) => html`<${PendingCount} value=${c.waits} />` },
];
const isTried = (c) => c.waits > 0 || c.circuit !== "closed" || c.paused_until;
export const NEXT_ATTEMPT = { head: "Next", cell: (c) => html`<${Until} at=${isTried(c) ? c.next_attempt : null} />` };

const EXPIRES = { head: "Expires", cell: (c) => html`<${Until} at=${c.waits ? c.expires : null} />` };

/** Return true if each worker has answered, so that figures of clients are whole. */
export const isWhole = () => !state.service || allAnswered(state.service);

/** A client's pending deliveries. If a worker has not answered, its deliveries are unknown. */
export function PendingCount({ value }) {
  if (isWhole()) return html`<${Count} value=${value} />`;
  return html`<span class="dim">${value ? `at least ${number(value)}` : "unknown"}</span>`;
}

export const Count = ({ value }) => (value ? number(value) : html`<span class="dim">0</span>`);
const stateOf = (c) => (c.state === "well" && c.tried === false ? "untried" : c.state);
const canRetry = (c) => (c.waits > 0 || retryOf(c)) && c.waits_for !== "unknown"; // a pressed button stays
const ACTIONS = { label: "Actions", act: true, cell: (c) =>
  c.paused_until ? html`<${ResumeButton} client=${c} />` : canRetry(c) && html`<${Retry} client=${c} />` };

function TroubledClients({ service }) {
  const { clients, states } = service;
  const failing = failingOf(service) + states.put_off + states.paused;
  const whole = clients.length === failing; // then a client that left the list is well
  const rows = keepRowOrder(clients, clientKey).map((row) => (row.gone && whole ? { ...row, state: "well", waits: 0 } : row));
  const unmet = service.waits.all - service.waits.known;
  return html`<section ...${holdRows}><h2>Clients that do not receive logouts
      ${failing > clients.length && html`${" "}<a class="more" href="#/clients?state=troubled">all ${number(failing)}</a>`}</h2>
    <${Table} caption="Clients with problems" keyOf=${clientKey} rows=${rows}
      columns=${[...CLIENT_COLUMNS, NEXT_ATTEMPT, EXPIRES, ACTIONS]} empty=${noneInTrouble(service)} />
    ${unmet > MAX_UNRECORDED && html`<p class="dim note">${number(unmet)} more are pending for clients without an attempt since the workers
      started: see <a href="#/waiting">Pending</a>.</p>`}
    ${service.clients_left_out > 0 && html`<p class="dim note">More clients are in trouble: the workers have omitted
      ${" "}${number(service.clients_left_out)} states, which their answers have no room for.</p>`}</section>`;
}

function noneInTrouble(service) {
  if (!allAnswered(service)) return `None at ${answeredOf(service)}.`;
  return `None. ${counted(service.states.well, "healthy client")}.`;
}

// ── queues and workers ──

const DEAD = html`<a href="#/dead">dead letters</a>`;

function Queues({ queues }) {
  const { delayed, parked, dead, ...lanes } = queues;
  if (!delayed) return html`<section><h2>Queues</h2><p class="empty">Unknown: the queue is unavailable.</p></section>`;
  return html`<section><h2>Queues</h2><dl class="queues">
    ${Object.entries(lanes).map(([name, lane]) => html`<${Queue} name=${name} queue=${lane} />`)}
    <${Queue} name="delayed" queue=${delayed} what="until their next attempt" />
    ${parked && html`<${Queue} name="parked" queue=${parked} what="until their client recovers" />`}
    ${dead && html`<${Queue} name=${DEAD} queue=${dead} bad=${dead.ready > 0} />`}</dl></section>`;
}

function Queue({ name, queue, what, bad }) {
  const oldest = queue.oldest && queue.ready ? html`oldest <${Ago} at=${queue.oldest} suffix="" />` : "";
  return html`<div class=${bad ? "bad" : ""}><dt>${name}</dt>
    <dd>${number(queue.ready)}${queue.held ? html`${" "}<span class="dim">+ ${number(queue.held)} held by workers</span>` : ""}</dd>
    <dd class="dim">${what ?? oldest}</dd></div>`;
}

function Workers({ service: { workers: { each: workers }, troubles } }) {
  const vanished = troubles.filter(({ kind }) => kind === "worker_vanished");
  return html`<section><h2>Workers</h2>${workers.length === 0 && html`<p class="empty">No worker answers.</p>`}
    <ul class="lines">${workers.map((one) => html`<${Worker} key=${one.worker} worker=${one} />`)}
      ${vanished.map(({ subject, since }) => html`<li key=${subject}><b><${SafeText} text=${subject} limit=${60} /></b>${" "}
        <span class="chip warn">last seen <${Ago} at=${since} /></span></li>`)}</ul></section>`;
}

function Worker({ worker }) {
  const problem = worker.consuming === false && (worker.problem || "it takes no events yet");
  return html`<li><b><${SafeText} text=${worker.worker} limit=${60} /></b>${" "}<span class="dim">${worker.version}</span>${" "}
    ${worker.draining ? html`<span class="chip warn">draining</span>`
      : html`<span class="dim">up <${Ago} at=${worker.since} suffix="" /></span>`}
    <br />${rate(worker.rates.delivered)} delivered a second, ${number(worker.in_flight)} in flight
    ${problem && html`<br /><span class="chip bad">not consuming</span>${" "}<${SafeText} text=${problem} />`}</li>`;
}

function Relays({ relays }) {
  return html`<section><h2>Relays</h2><ul class="lines">${relays.map((one) => html`<${Relay} key=${one.relay} of=${one} />`)}</ul></section>`;
}

const KEYS_TONES = { fresh: "good", held: "warn" };

function Relay({ of: { relay, iss, keys, last_token: last } }) {
  const tone = KEYS_TONES[keys] ?? "bad";
  return html`<li><b><${SafeText} text=${relay} limit=${60} /></b>${" "}<span class="iss"><${SafeText} text=${host(iss)} /></span>${" "}
    <span class="chip ${tone}">${tone === "bad" ? `keys not served: ${keys}` : `keys ${keys}`}</span>
    <br />${last ? html`last token <${Ago} at=${last} />` : "no token since the workers started"}</li>`;
}
