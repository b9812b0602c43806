// The results of a user, a session or an event at each client: from workers' memory, dead letters, pending deliveries.
import { Answer, EventLink, NeedsToken, Trouble, ClientName, clientKey } from "./parts.js";
import { Clock, Until, formatTime, html } from "./text.js";
import { KINDS } from "./words.js";
import { Table } from "./tables.js";
import { api } from "./api.js";
import { state, update } from "./state.js";

/** The address may contain an event, but never a user, who is sent in a request body. */
export async function loadFind({ event_id }) {
  return event_id && !state.me.open ? find({ event_id }) : null;
}

async function find(body) {
  const kinds = { facts: "find", letters: "dead-letters/find", waiting: "waiting/find" };
  const answers = await Promise.all(Object.entries(kinds).map(async ([name, path]) => {
    try {
      return [name, await api(path, { body })];
    } catch (problem) {
      return [name, { problem }];
    }
  }));
  return Object.fromEntries(answers);
}

async function search(event) {
  event.preventDefault();
  const form = new FormData(event.target);
  const what = form.get("what").trim();
  if (!what) return;
  const { route } = state;
  update({ page: { ...state.page, data: { busy: true } } });
  const data = await find(form.get("kind") === "event" ? { event_id: what } : { subject: what });
  if (state.route === route) update({ page: { ...state.page, data } });
}

/** Return the results of all three searches as rows, by time. A dead letter that a worker also reports is one row. */
function rowsOf({ facts, letters, waiting }) {
  const recorded = (facts.facts ?? []).map((row) => ({ ...row, by: "worker" }));
  const dead = (letters.letters ?? []).map((row) => ({ ...row, at: row.dead_since, kind: "dead", by: "dead letters" }));
  const pending = (waiting.deliveries ?? [])
    .map((row) => ({ ...row, at: row.since, kind: "waits", next_due: row.due, by: "pending" }));
  const deliveryKey = (row) => `${row.event_id} ${clientKey(row)}`;
  const deadKeys = new Set(dead.map(deliveryKey));
  const others = recorded.filter((row) => row.kind !== "dead" || !deadKeys.has(deliveryKey(row)));
  return [...others, ...dead, ...pending].sort((one, other) => Date.parse(one.at) - Date.parse(other.at));
}

const BY_COMMAND = 'grep "$(notifier log-id -c notifier.yaml SUB)" notifier.log';

export function Find({ data, query }) {
  if (state.me.open) return html`<${NeedsToken} what="Searching from here" command=${BY_COMMAND} />`;
  return html`<form class="filters find" onSubmit=${search} autocomplete="off" role="search">
      <label>Find <select name="kind"><option value="user">a user or session (sub or sid)</option>
        <option value="event" selected=${Boolean(query.event_id)}>an event, by its id</option></select></label>
      <label class="grow">Value <input name="what" type="search" required maxlength="1000" spellcheck="false" autocomplete="off"
        defaultValue=${query.event_id ?? ""} /></label><button class="main">Find</button></form>
    <p class="dim note">The value is sent in the request body, never in a URL. The audit log records the search without the
      ${" "}value. Results name no user.</p>
    ${data?.busy ? html`<p role="status">Searching …</p>` : data && html`<${SearchResults} data=${data} />`}`;
}

function SearchResults({ data }) {
  const problems = Object.values(data).map((each) => each.problem).filter(Boolean);
  const since = data.facts.remembered_since;
  return html`${problems.map((problem) => html`<${Trouble} problem=${problem} tone="warn" />`)}
    <${Table} caption="Results" rows=${rowsOf(data)} keyOf=${(row) => `${row.by} ${row.worker} ${row.n ?? row.id}`}
      columns=${COLUMNS} empty="No result." />
    <p class="dim note">${since && `Workers keep results since ${formatTime(since, true)}. `}Earlier deliveries are in the log:
      ${" "}<code>${BY_COMMAND}</code>.</p>`;
}

const COLUMNS = [
  { head: "When", cell: (row) => html`<${Clock} at=${row.at} />` },
  { label: "Result", cell: (row) => html`<span class="chip ${KINDS[row.kind] ?? "warn"}">${row.kind}</span>` },
  { head: "Client", wide: true, cell: (row) => html`<${ClientName} client=${row} />` },
  { head: "Answer", say: true, cell: (row) => html`<${Answer} row=${row} />` },
  { head: "Next", cell: (row) => html`<${Until} at=${row.next_due} />` },
  { head: "Event", cell: (row) => html`<${EventLink} id=${row.event_id} />` },
  { head: "Source", cell: (row) => html`<span class="dim">${row.by}</span>` },
];
