// Pending deliveries. They are listed on request and never polled, since a listing reads the queues.
import { Ago, Until, counted, html, number, thisOrThese } from "./text.js";
import { Answer, ListingTime, LoadingNote, EventLink, Filters, IssuerChoice, Search, ClientName, RunbookLink, clientKey } from "./parts.js";
import { Pagination, Table } from "./tables.js";
import { Retry } from "./retries.js";
import { api, hasScope, withoutEmpty } from "./api.js";
import { changeQuery, pageAddress } from "./addresses.js";
import { beginRepair } from "./repairs.js";
import { loadPage } from "./following.js";
import { state } from "./state.js";

const ROWS = 50;
const CACHE_SECONDS = 60; // seconds that a listing of the queues is reused
let age = CACHE_SECONDS;

const filterOf = ({ client_id, iss, event_id }) => withoutEmpty({ client_id, iss, event_id });

export function loadWaiting(query, signal) {
  const request = { ...filterOf(query), rows: ROWS, skip: query.skip, age };
  age = CACHE_SECONDS;
  return api("waiting/page", { signal, query: request });
}

/** Read the queues, not the cached listing. */
export function refreshWaiting() {
  age = 0;
  loadPage();
}

export function Waiting({ data, query }) {
  const filter = filterOf(query);
  const cancels = hasScope("repair") && data?.total > 0 && Object.keys(filter).length > 0;
  return html`<${Filters} label="Filter deliveries">
      <${Search} name="client_id" label="Client" placeholder="exact id" value=${query.client_id} />
      <${IssuerChoice} value=${query.iss} />
      <${Search} name="event_id" label="Event" placeholder="exact id" value=${query.event_id} /><//>
    ${!data ? html`<${LoadingNote}>Reading the pending deliveries …<//>` : html`
      <p class="row between"><${ListingTime} at=${data.as_of} again=${refreshWaiting}>Not refreshed automatically.<//>
        ${cancels && html`<button type="button" class="danger-quiet" onClick=${() => beginRepair("cancel", filter)}>
          Cancel ${thisOrThese(data.total)} …</button>`}</p>
      <${Table} caption="Pending deliveries by client" rows=${clientRows(data.groups)} keyOf=${clientKey} columns=${CLIENTS}
        empty="No pending deliveries." />
      ${data.more_groups > 0 && html`<p class="dim note">and ${counted(data.more_groups, "smaller group")} of a client, a reason and a
        ${" "}place, which these counts leave out: filter by client or issuer.</p>`}
      ${data.deliveries.length > 0 && html`<section><h2>Deliveries</h2>
        <${Table} caption="Pending deliveries" rows=${data.deliveries} keyOf=${(each) => each.id} columns=${DELIVERIES} />
        <${Pagination} skip=${data.skip} rows=${ROWS} total=${data.total} go=${(skip) => changeQuery({ skip })} /></section>`}`}`;
}

/** Return a row for each client, the largest first: its sums, and its groups by reason and place. */
function clientRows(groups) {
  const rows = new Map();
  for (const group of groups) {
    const { client_id, iss } = group;
    const row = rows.get(clientKey(group)) ?? { client_id, iss, count: 0, groups: [] };
    const oldest = earliest(row.oldest, group.oldest), next = earliest(row.next, group.next);
    rows.set(clientKey(group), { ...row, oldest, next, count: row.count + group.count, groups: [...row.groups, group] });
  }
  return [...rows.values()].sort((one, other) => other.count - one.count);
}

const earliest = (one, other) => [one, other].filter(Boolean).sort((a, b) => Date.parse(a) - Date.parse(b))[0];
const PLACES = { parked: "parked until it recovers" };

function Cause({ group: { reason, where, count }, alone }) {
  return html`${!alone && html`<b>${number(count)}</b> `}${reason ? html`<${RunbookLink} name=${reason} />` : "no reason yet"}${" "}
    <span class="dim">${PLACES[where] ?? where}</span>`;
}

/** A client's reasons and places: the largest, or all of them when opened. */
function Causes({ row: { groups } }) {
  if (groups.length === 1) return html`<${Cause} group=${groups[0]} alone />`;
  return html`<details class="opened"><summary>${counted(groups.length, "reason")}</summary><ul>${groups.map((group) =>
    html`<li key=${`${group.where} ${group.reason}`}><${Cause} group=${group} /></li>`)}</ul></details>`;
}

const CLIENTS = [
  { head: "Client", wide: true, cell: (row) => html`<${ClientName} client=${row} />` },
  { head: "Pending", num: true, cell: (row) => number(row.count) },
  { head: "Reason", cell: (row) => html`<${Causes} row=${row} />` },
  { head: "Oldest", cell: (row) => html`<${Ago} at=${row.oldest} />` },
  { head: "Next", cell: (row) => html`<${Until} at=${row.next} />` },
  { label: "Actions", act: true, cell: (row) => html`<${ClientActions} row=${row} />` },
];

const ClientActions = ({ row: { client_id, iss, groups } }) => client_id && html`
  ${groups.some(({ reason }) => reason !== "unknown") && html`<${Retry} client=${{ client_id, iss }} />`}
  ${" "}<a class="button" href=${pageAddress("waiting", { client_id, iss })}>Only these</a>`;

/** The last real answer: the delivery's own or, if it was not attempted yet, its client's. */
function LastAnswer({ row }) {
  if (row.failure) return html`<${Answer} row=${{ ...row, reason: row.failure }} />`;
  return html`<${Answer} row=${state.service?.clients.find((client) => clientKey(client) === clientKey(row)) ?? {}} />`;
}

const DELIVERIES = [
  { head: "Client", wide: true, cell: (each) => html`<${ClientName} client=${each} />` },
  { head: "Since", cell: (each) => html`<${Ago} at=${each.since} suffix="" />` },
  { head: "Due", cell: (each) => html`<${Until} at=${each.due} none="when it recovers" />` },
  { head: "Reason", cell: (each) => (each.reason ? html`<${RunbookLink} name=${each.reason} />` : "–") },
  { head: "Last answer", say: true, cell: (each) => html`<${LastAnswer} row=${each} />` },
  { head: "Attempts", num: true, cell: (each) => each.attempts },
  { head: "Event", cell: (each) => html`<${EventLink} id=${each.event_id} />` },
];
