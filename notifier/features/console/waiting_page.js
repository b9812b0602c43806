// Pending deliveries. They are listed on request and never polled, since a listing reads the queues.
import { Ago, Until, counted, html, number, thisOrThese } from "./text.js";
import { Answer, ListingTime, LoadingNote, EventLink, Filters, IssuerChoice, Search, ClientName, RunbookLink, clientKey } from "./parts.js";
import { Pagination, Table } from "./tables.js";
import { Retry } from "./retries.js";
import { api, hasScope, withoutEmpty } from "./api.js";
import { changeQuery, pageAddress } from "./addresses.js";
import { beginRepair } from "./repairs.js";
import { loadPage } from "./following.js";

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
      <${Table} caption="Pending deliveries by client and cause" rows=${data.groups} keyOf=${groupKey} columns=${GROUPS}
        empty="No pending deliveries." />
      ${data.more_groups > 0 && html`<p class="dim note">and ${counted(data.more_groups, "smaller group")}: filter by client
        ${" "}or issuer.</p>`}
      ${data.deliveries.length > 0 && html`<section><h2>Deliveries</h2>
        <${Table} caption="Pending deliveries" rows=${data.deliveries} keyOf=${(each) => each.id} columns=${DELIVERIES} />
        <${Pagination} skip=${data.skip} rows=${ROWS} total=${data.total} go=${(skip) => changeQuery({ skip })} /></section>`}`}`;
}

const groupKey = (group) => `${clientKey(group)} ${group.where} ${group.reason}`;

const GROUPS = [
  { head: "Client", wide: true, cell: (group) => html`<${ClientName} client=${group} />` },
  { head: "Reason", cell: (group) => (group.reason ? html`<${RunbookLink} name=${group.reason} />` : "–") },
  { head: "Where", cell: (group) => (group.where === "parked" ? "parked until it recovers" : group.where) },
  { head: "Count", num: true, cell: (group) => number(group.count) },
  { head: "Oldest", cell: (group) => html`<${Ago} at=${group.oldest} />` },
  { head: "Next", cell: (group) => html`<${Until} at=${group.next} />` },
  { label: "Actions", act: true, cell: (group) => html`<${ClientActions} group=${group} />` },
];

const ClientActions = ({ group: { client_id, iss, reason } }) => client_id && html`
  ${reason !== "unknown" && html`<${Retry} client=${{ client_id, iss }} />`}
  ${" "}<a class="button" href=${pageAddress("waiting", { client_id, iss })}>Only these</a>`;

const DELIVERIES = [
  { head: "Client", wide: true, cell: (each) => html`<${ClientName} client=${each} />` },
  { head: "Since", cell: (each) => html`<${Ago} at=${each.since} suffix="" />` },
  { head: "Due", cell: (each) => html`<${Until} at=${each.due} none="when it recovers" />` },
  { head: "Last answer", say: true, cell: (each) => html`<${Answer} row=${each} />` },
  { head: "Attempts", num: true, cell: (each) => each.attempts },
  { head: "Event", cell: (each) => html`<${EventLink} id=${each.event_id} />` },
];
