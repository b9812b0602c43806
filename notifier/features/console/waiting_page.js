// Pending deliveries. They are listed on request and never polled, since a listing reads the queues.
import { Ago, Until, counted, html, number, these } from "./text.js";
import { Answer, AsOf, Asking, EventLink, Filters, IssuerChoice, Search, Who, Word, clientKey } from "./parts.js";
import { Pages, Table } from "./tables.js";
import { Retry } from "./retries.js";
import { api, may, narrowed } from "./api.js";
import { ask, hash } from "./places.js";
import { beginRepair } from "./repairs.js";
import { follow } from "./following.js";

const ROWS = 50;
const KEPT = 60; // seconds that a listing of the queues is reused
let age = KEPT;

const filterOf = ({ client_id, iss, event_id }) => narrowed({ client_id, iss, event_id });

export function loadWaiting(query, signal) {
  const asked = { ...filterOf(query), rows: ROWS, skip: query.skip, age };
  age = KEPT;
  return api("waiting/page", { signal, query: asked });
}

/** Read the queues, not the cached listing. */
export function refreshWaiting() {
  age = 0;
  follow();
}

export function Waiting({ data, query }) {
  const filter = filterOf(query);
  const cancels = may("repair") && data?.total > 0 && Object.keys(filter).length > 0;
  return html`<${Filters} label="Filter deliveries">
      <${Search} name="client_id" label="Client" placeholder="exact id" value=${query.client_id} />
      <${IssuerChoice} value=${query.iss} />
      <${Search} name="event_id" label="Event" placeholder="exact id" value=${query.event_id} /><//>
    ${!data ? html`<${Asking}>Reading the pending deliveries …<//>` : html`
      <p class="row between"><${AsOf} at=${data.as_of} again=${refreshWaiting}>Not refreshed automatically.<//>
        ${cancels && html`<button type="button" class="danger-quiet" onClick=${() => beginRepair("cancel", filter)}>
          Cancel ${these(data.total)} …</button>`}</p>
      <${Table} caption="Pending deliveries by client and cause" rows=${data.groups} keyOf=${groupKey} columns=${GROUPS}
        empty="No pending deliveries." />
      ${data.more_groups > 0 && html`<p class="dim note">and ${counted(data.more_groups, "smaller group")}: filter by client
        ${" "}or issuer.</p>`}
      ${data.deliveries.length > 0 && html`<section><h2>Deliveries</h2>
        <${Table} caption="Pending deliveries" rows=${data.deliveries} keyOf=${(each) => each.id} columns=${DELIVERIES} />
        <${Pages} skip=${data.skip} rows=${ROWS} total=${data.total} go=${(skip) => ask({ skip })} /></section>`}`}`;
}

const groupKey = (group) => `${clientKey(group)} ${group.where} ${group.reason}`;

const GROUPS = [
  { head: "Client", wide: true, cell: (group) => html`<${Who} client=${group} />` },
  { head: "Reason", cell: (group) => (group.reason ? html`<${Word} name=${group.reason} />` : "–") },
  { head: "Where", cell: (group) => (group.where === "parked" ? "parked until it recovers" : group.where) },
  { head: "Count", num: true, cell: (group) => number(group.count) },
  { head: "Oldest", cell: (group) => html`<${Ago} at=${group.oldest} />` },
  { head: "Next", cell: (group) => html`<${Until} at=${group.next} />` },
  { label: "Actions", act: true, cell: (group) => html`<${Ways} group=${group} />` },
];

const Ways = ({ group: { client_id, iss, reason } }) => client_id && html`
  ${reason !== "unknown" && html`<${Retry} client=${{ client_id, iss }} />`}
  ${" "}<a class="button" href=${hash("waiting", { client_id, iss })}>Only these</a>`;

const DELIVERIES = [
  { head: "Client", wide: true, cell: (each) => html`<${Who} client=${each} />` },
  { head: "Since", cell: (each) => html`<${Ago} at=${each.since} suffix="" />` },
  { head: "Due", cell: (each) => html`<${Until} at=${each.due} none="when it recovers" />` },
  { head: "Last answer", say: true, cell: (each) => html`<${Answer} row=${each} />` },
  { head: "Attempts", num: true, cell: (each) => each.attempts },
  { head: "Event", cell: (each) => html`<${EventLink} id=${each.event_id} />` },
];
