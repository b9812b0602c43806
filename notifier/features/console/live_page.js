// Live events: failures, outages, recoveries, dead letters, and deliveries if selected.
import { Answer, LoadingNote, EventLink, Filters, Search, ClientName } from "./parts.js";
import { Clock, SafeText, Until, html, number } from "./text.js";
import { KINDS } from "./words.js";
import { Table, holdRows } from "./tables.js";
import { api } from "./api.js";
import { changeQuery } from "./addresses.js";
import { loadPage } from "./following.js";
import { state, update } from "./state.js";

const MAX_KEPT_ROWS = 1000; // of them, the newest that match are shown
const MAX_SHOWN_ROWS = 300;
const SEARCHED_MEMBERS = ["client_id", "reason", "text", "kind", "iss"];

export async function loadLive({ good }, signal, before) {
  if (state.paused && before) return before;
  const { next, facts } = await api("recent", { signal, query: { after: before?.next, good } });
  return { next, facts: [...(before?.facts ?? []), ...facts].slice(-MAX_KEPT_ROWS) };
}

const rowKey = (row) => `${row.worker} ${row.n}`;
let heldRows = []; // the rows when the pointer entered

export function Live({ data, query }) {
  const words = (query.q ?? "").toLowerCase();
  const matches = (row) => SEARCHED_MEMBERS.some((name) => row[name]?.toLowerCase().includes(words));
  const rows = (data?.facts ?? []).filter(matches).slice(-MAX_SHOWN_ROWS).reverse();
  if (!state.held) heldRows = rows;
  const newer = rows.findIndex((row) => rowKey(row) === (heldRows[0] && rowKey(heldRows[0])));
  const pause = () => {
    update({ paused: !state.paused });
    loadPage();
  };
  return html`<${Filters} label="Filter">
      <${Search} name="q" label="Search" placeholder="client, reason, text" value=${query.q} />
      <label class="check"><input type="checkbox" checked=${query.good === "true"}
        onChange=${(event) => changeQuery({ good: event.target.checked ? "true" : "" })} /> include successes</label>
      <button type="button" aria-pressed=${state.paused} onClick=${pause}>${state.paused ? "Resume" : "Pause"}</button>
      <span class="dim" role="status">${state.paused ? "Paused." : newer > 0 && html`
        ${number(newer)} newer: shown when the pointer leaves the table.`}</span><//>
    ${!data ? html`<${LoadingNote} />` : html`<div ...${holdRows}>
      <${Table} caption="Live events" rows=${heldRows} keyOf=${rowKey} columns=${COLUMNS}
        empty="No recent failures." /></div>`}`;
}

const Text = ({ row }) => html`<${SafeText} text=${row.text} className="dim" />`;

const COLUMNS = [
  { head: "When", cell: (row) => html`<${Clock} at=${row.at} />` },
  { label: "Kind", cell: ({ kind }) => html`<span class="chip ${KINDS[kind]}">${kind.replace("_", " ")}</span>` },
  { head: "Client", wide: true, cell: (row) => html`<${ClientName} client=${row} />` },
  { head: "Answer", say: true, cell: (row) => html`<${row.reason || row.kind === "delivered" ? Answer : Text} row=${row} />` },
  { head: "Took", num: true, cell: (row) => (row.seconds == null ? "" : `${number(Math.round(row.seconds * 1000))} ms`) },
  { head: "Next", cell: (row) => (row.next_due ? html`<${Until} at=${row.next_due} />` : "") },
  { head: "Event", cell: (row) => html`<${EventLink} id=${row.event_id} />` },
];
