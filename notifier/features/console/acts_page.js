// The audit log: jobs of the last hour, and actions of operators since these workers started.
import { Clock, SafeText, counted, html, number, quoteJson } from "./text.js";
import { ClientName, LoadingNote } from "./parts.js";
import { Table } from "./tables.js";
import { api, hasScope, coversAllIssuers } from "./api.js";
import { stopJob, storeJob, summarize, toneOf } from "./jobs.js";
import { loadPage } from "./following.js";

export async function loadAuditLog(_query, signal) {
  const [audit, { jobs }] = await Promise.all([coversAllIssuers() ? api("acts", { signal }) : null, api("jobs", { signal })]);
  return { ...audit, jobs };
}

export function AuditLog({ data }) {
  if (!data) return html`<${LoadingNote} />`;
  return html`<section><h2>Jobs of the last hour</h2>
      <${Table} caption="Jobs" rows=${data.jobs} keyOf=${(job) => job.id} columns=${JOBS} empty="None." /></section>
    ${data.acts && html`<section><h2>Actions of operators</h2>
      <${Table} caption="Actions of operators" rows=${data.acts} keyOf=${actKey} columns=${ACTS}
        empty="No action since the workers started." />
      <p class="dim note">Workers keep this in memory until they stop. The log has it permanently: the command finds its lines in a JSON log.</p></section>`}`;
}

const actKey = (act) => `${act.worker} ${act.n ?? act.at} ${act.action}`;
const SHOWN_ELSEWHERE = new Set(["at", "who", "action", "action_id", "pause", "repair_id", "parts", "worker", "n", "log", "iss"]);
/** The other members of an audit line that have a value. */
const formatDetails = (act) => Object.entries(act).filter(([name, value]) => !SHOWN_ELSEWHERE.has(name) && hasValue(value))
  .map(([name, value]) => `${WORDS[name] ?? name}: ${formatValue(value)}`).join(", ");
const WORDS = { wanted: "filter" };
const hasValue = (value) => ![null, false, ""].includes(value) && JSON.stringify(value) !== "{}";
/** A value as text: counts and filters as words, without the signs of JSON. */
function formatValue(value) {
  if (value?.all === true) return "all of them";
  if (Array.isArray(value)) return value.map(formatValue).join(" ");
  return value && typeof value === "object" ? Object.entries(value).map(([name, each]) => `${name} ${formatValue(each)}`).join(", ") : value;
}

/** The command that finds the lines of exactly this action, or of its kind if the action has no number. */
function logLine({ action, who, repair_id, action_id }) {
  const [name, id] = repair_id ? ["repair_id", repair_id] : ["action_id", action_id];
  const wanted = id ? `.${name} == ${quoteJson(id)}` : `.event == ${quoteJson(action)} and .who == ${quoteJson(who)}`;
  return `jq -c 'select(.audit and ${wanted})' notifier.log`;
}

/** The details of an action, and the messages that it removed: the workers remember the last of them. */
function Details({ act }) {
  const { parts = [], done = parts.length } = act;
  return html`<${SafeText} text=${formatDetails(act)} limit=${400} />
    ${parts.length > 0 && html`<details class="opened"><summary>${counted(done, "message")}${done > parts.length
      && `, the last ${number(parts.length)} here`}</summary><ul>${parts.map((part) => html`<li key=${part.id}>
        <${Clock} at=${part.at} />${" "}<${ClientName} client=${part} />${" "}<span class="dim">${part.reason}</span>
        ${" "}<code><${SafeText} text=${part.id} /></code></li>`)}</ul></details>`}`;
}

async function endJob(job) {
  storeJob(job);
  await stopJob(job);
  loadPage();
}

const JOBS = [
  { head: "Started", cell: (job) => html`<${Clock} at=${job.began_at} />` },
  { head: "Who", cell: (job) => html`<${SafeText} text=${job.who} limit=${60} middle />` },
  { head: "Job", cell: (job) => job.kind },
  { head: "State", cell: (job) => html`<span class="chip ${toneOf(job) || "warn"}">${job.state}</span>` },
  { head: "Result", wide: true, cell: (job) => html`<${SafeText} text=${summarize(job)} limit=${400} />` },
  { label: "Actions", act: true, cell: (job) => hasScope("repair") && job.state !== "ended" && html`<${End} job=${job} />` },
];

const End = ({ job }) => html`<button type="button" class="danger-quiet" onClick=${() => endJob(job)}>Stop</button>`;

const ACTS = [
  { head: "When", cell: (act) => html`<${Clock} at=${act.at} />` },
  { head: "Who", cell: (act) => html`<${SafeText} text=${act.who} limit=${60} middle />` },
  { head: "Action", cell: (act) => html`<${SafeText} text=${act.action.replaceAll("_", " ")} />` },
  { head: "Details", wide: true, cell: (act) => html`<${Details} act=${act} />` },
  { head: "Worker", cell: (act) => html`<${SafeText} text=${act.worker} limit=${40} className="dim" />` },
  { head: "Find in the log", wide: true, cell: (act) => html`<code><${SafeText} text=${logLine(act)} limit=${400} /></code>` },
];
