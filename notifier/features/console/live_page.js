// Live events: failures, outages, recoveries, dead letters, and deliveries if selected.
import { Answer, Asking, EventLink, Filters, Search, Who } from "./parts.js";
import { Clock, Said, Until, html, number } from "./text.js";
import { KINDS } from "./words.js";
import { Table, holding } from "./tables.js";
import { api } from "./api.js";
import { ask } from "./places.js";
import { follow } from "./following.js";
import { state, update } from "./state.js";

const REMEMBERED = 1000;
const SHOWN = 300;
const SEARCHED = ["client_id", "reason", "text", "kind", "iss"];

export async function loadLive({ good }, signal, before) {
  if (state.paused && before) return before;
  const { next, facts } = await api("recent", { signal, query: { after: before?.next, good } });
  return { next, facts: [...(before?.facts ?? []), ...facts].slice(-REMEMBERED) };
}

const rowKey = (row) => `${row.worker} ${row.n}`;
let still = []; // the rows when the pointer entered

export function Live({ data, query }) {
  const words = (query.q ?? "").toLowerCase();
  const matches = (row) => SEARCHED.some((name) => row[name]?.toLowerCase().includes(words));
  const rows = (data?.facts ?? []).filter(matches).slice(-SHOWN).reverse();
  if (!state.held) still = rows;
  const newer = rows.findIndex((row) => rowKey(row) === (still[0] && rowKey(still[0])));
  const pause = () => {
    update({ paused: !state.paused });
    follow();
  };
  return html`<${Filters} label="Filter">
      <${Search} name="q" label="Search" placeholder="client, reason, text" value=${query.q} />
      <label class="check"><input type="checkbox" checked=${query.good === "true"}
        onChange=${(event) => ask({ good: event.target.checked ? "true" : "" })} /> include successes</label>
      <button type="button" aria-pressed=${state.paused} onClick=${pause}>${state.paused ? "Resume" : "Pause"}</button>
      <span class="dim" role="status">${state.paused ? "Paused." : newer > 0 && html`
        ${number(newer)} newer: shown when the pointer leaves the table.`}</span><//>
    ${!data ? html`<${Asking} />` : html`<div ...${holding}>
      <${Table} caption="Live events" rows=${still} keyOf=${rowKey} columns=${COLUMNS}
        empty="No recent failures." /></div>`}`;
}

const Text = ({ row }) => html`<${Said} text=${row.text} className="dim" />`;

const COLUMNS = [
  { head: "When", cell: (row) => html`<${Clock} at=${row.at} />` },
  { label: "Kind", cell: ({ kind }) => html`<span class="chip ${KINDS[kind]}">${kind.replace("_", " ")}</span>` },
  { head: "Client", wide: true, cell: (row) => html`<${Who} client=${row} />` },
  { head: "Answer", say: true, cell: (row) => html`<${row.reason || row.kind === "delivered" ? Answer : Text} row=${row} />` },
  { head: "Took", num: true, cell: (row) => (row.seconds == null ? "" : `${number(Math.round(row.seconds * 1000))} ms`) },
  { head: "Next", cell: (row) => (row.next_due ? html`<${Until} at=${row.next_due} />` : "") },
  { head: "Event", cell: (row) => html`<${EventLink} id=${row.event_id} />` },
];
