// The audit log: jobs of the last hour, and actions of operators since these workers started.
import { Clock, SafeText, html, quoteJson } from "./text.js";
import { LoadingNote } from "./parts.js";
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
      <p class="dim note">Workers keep this in memory until they stop. The log has it permanently: the command in the last column finds the line in a JSON log.</p></section>`}`;
}

const actKey = (act) => `${act.worker} ${act.n ?? act.at} ${act.action}`;
const SHOWN_ELSEWHERE = new Set(["at", "who", "action", "action_id", "worker", "n", "log", "iss"]);
/** The other members of an audit line that have a value. */
const formatDetails = (act) => Object.entries(act).filter(([name, value]) => !SHOWN_ELSEWHERE.has(name) && hasValue(value))
  .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join(", ");
const hasValue = (value) => ![null, false, ""].includes(value) && JSON.stringify(value) !== "{}";

function logLine({ action, who }) {
  return `jq -c 'select(.audit and .event == ${quoteJson(action)} and .who == ${quoteJson(who)})' notifier.log`;
}

async function endJob(job) {
  storeJob(job);
  await stopJob(job);
  loadPage();
}

const JOBS = [
  { head: "Started", cell: (job) => html`<${Clock} at=${job.began_at} />` },
  { head: "Who", cell: (job) => html`<${SafeText} text=${job.who} limit=${60} />` },
  { head: "Job", cell: (job) => job.kind },
  { head: "State", cell: (job) => html`<span class="chip ${toneOf(job) || "warn"}">${job.state}</span>` },
  { head: "Result", wide: true, cell: (job) => html`<${SafeText} text=${summarize(job)} limit=${400} />` },
  { label: "Actions", act: true, cell: (job) => hasScope("repair") && job.state !== "ended" && html`<${End} job=${job} />` },
];

const End = ({ job }) => html`<button type="button" class="danger-quiet" onClick=${() => endJob(job)}>Stop</button>`;

const ACTS = [
  { head: "When", cell: (act) => html`<${Clock} at=${act.at} />` },
  { head: "Who", cell: (act) => html`<${SafeText} text=${act.who} limit=${60} />` },
  { head: "Action", cell: (act) => html`<${SafeText} text=${act.action.replaceAll("_", " ")} />` },
  { head: "Details", wide: true, cell: (act) => html`<${SafeText} text=${formatDetails(act)} limit=${400} />` },
  { head: "Worker", cell: (act) => html`<${SafeText} text=${act.worker} limit=${40} className="dim" />` },
  { head: "Find in the log", wide: true, cell: (act) => html`<code><${SafeText} text=${logLine(act)} limit=${400} /></code>` },
];
