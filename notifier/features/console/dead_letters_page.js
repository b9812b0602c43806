// Dead letters, newest first: reasons as filters with counts, and actions on all matches of the filter.
import { LoadingNote, ListingTime, Choice, Filters, IssuerChoice, Search, ClientName, Quote, RunbookLink, clientKey } from "./parts.js";
import { Clock, counted, html, number, toPlainText, sum, thisOrThese } from "./text.js";
import { Pagination, Table } from "./tables.js";
import { api, hasScope, withoutEmpty } from "./api.js";
import { changeQuery, pageAddress } from "./addresses.js";
import { beginRepair } from "./repairs.js";
import { explain } from "./dialogs.js";
import { loadPage } from "./following.js";
import { showDeadLetter } from "./dead_letter.js";
import { state } from "./state.js";

const ROWS = 50;
const AGES = [["", "any time"], ["1h", "last hour"], ["24h", "last day"], ["7d", "last week"]];
const CACHE_SECONDS = 60; // seconds that a listing of the dead letters is reused
let age = CACHE_SECONDS;

const filterOf = ({ client_id, iss, event_id, reason, since }) =>
  withoutEmpty({ client_id, iss, event_id, reason: reason ? [reason] : undefined, since });

export function loadDeadLetters(query, signal) {
  const request = { ...filterOf(query), rows: ROWS, skip: query.skip, age };
  age = CACHE_SECONDS;
  return api("dead-letters/page", { signal, query: request });
}

/** Read the dead letters from the queue, not the cached listing. */
export function refreshLetters() {
  age = 0;
  loadPage();
}

export function DeadLetters({ data, query }) {
  return html`<${Filters} label="Filter dead letters">
      <${Search} name="client_id" label="Client" placeholder="exact id" value=${query.client_id} />
      <${IssuerChoice} value=${query.iss} />
      <${Choice} name="since" label="Session ended" value=${query.since} options=${AGES} />
      <${Search} name="event_id" label="Event" placeholder="exact id" value=${query.event_id} /><//>
    ${!data ? html`<${LoadingNote}>Reading the dead letters: takes some seconds if there are many …<//>` : html`
      <${Reasons} reasons=${data.reasons} chosen=${query.reason} />
      <p class="row between"><${ListingTime} at=${data.as_of} again=${refreshLetters}>${changesSince(data, query)}
          ${query.reason && html`<${Meaning} reason=${query.reason} />`}<//>
        <${RepairButtons} filter=${filterOf(query)} data=${data} /></p>
      <${ByClient} data=${data} />
      <${Table} caption="Dead letters" rows=${data.letters} keyOf=${(letter) => letter.id} columns=${LETTERS}
        empty="No dead letter matches." />
      <${Pagination} skip=${data.skip} rows=${ROWS} total=${data.total} go=${(skip) => changeQuery({ skip })} />
      ${data.left_off > 0 && html`<p class="dim note">${counted(data.left_off, "older dead letter is", "older dead letters are")} not
        ${" "}listed: filter by client, or use <code>notifier dead-letters</code>.</p>`}`}`;
}

const Meaning = ({ reason }) => html`<button type="button" class="quiet" onClick=${() => explain(reason)}>
  What ${toPlainText(reason)} means</button>`;

/** How many were added or removed since the listing, by the queue's depth. */
function changesSince(data, query) {
  const dead = state.service?.queues.dead;
  if (!dead || Object.keys(filterOf(query)).length) return "";
  const more = dead.ready - data.total - data.left_off;
  return more > 0 ? `${number(more)} added since.` : more < 0 ? `${number(-more)} removed since.` : "";
}

function Reasons({ reasons, chosen }) {
  const button = (reason, word, count) => html`<button type="button" class="reason" aria-pressed=${(chosen ?? "") === reason}
    onClick=${() => changeQuery({ reason: chosen === reason ? "" : reason, skip: "" })}>${word} <b>${number(count)}</b></button>`;
  return html`<div class="reasons" role="group" aria-label="Reasons">${button("", "all", sum(reasons))}
    ${Object.entries(reasons).map(([reason, count]) => button(reason, reason, count))}</div>`;
}

function RepairButtons({ filter, data }) {
  if (!hasScope("repair") || !data.total) return null;
  const begin = (action) => () => beginRepair(action, filter, data.as_of);
  return html`<span class="row">
    <button type="button" class="do" onClick=${begin("replay")}>Replay ${thisOrThese(data.total)} …</button>
    <button type="button" class="danger-quiet" onClick=${begin("discard")}>Discard ${thisOrThese(data.total)} …</button></span>`;
}

const ByClient = ({ data }) => data.groups.length > 1 && html`<details><summary>By client</summary>
  <${Table} caption="By client and reason" rows=${data.groups} keyOf=${groupKey} columns=${GROUPS} />
  ${data.more_groups > 0 && html`<p class="dim">and ${counted(data.more_groups, "smaller group")}</p>`}</details>`;

const groupKey = (group) => `${clientKey(group)} ${group.reason}`;

const GROUPS = [
  { head: "Client", wide: true, cell: (group) => html`<${ClientName} client=${group} />` },
  { head: "Reason", cell: (group) => group.reason },
  { head: "Dead letters", num: true, cell: (group) => number(group.count) },
  { label: "Show", act: true, cell: ({ client_id, iss, reason }) =>
    html`<a class="button" href=${pageAddress("dead", { client_id, iss, reason })}>Only these</a>` },
];

const LETTERS = [
  { head: "Given up", cell: (letter) => html`<${Clock} at=${letter.dead_since} />` },
  { head: "Client", wide: true, cell: (letter) => html`<${ClientName} client=${letter} />` },
  { head: "Reason", cell: (letter) => html`<${RunbookLink} name=${letter.reason} />` },
  { head: "Text", say: true, cell: (letter) => html`<${Quote} text=${letter.text} />` },
  { head: "Attempts", num: true, cell: (letter) => letter.attempts },
  { label: "Actions", act: true, cell: (letter) => html`<button type="button" onClick=${() => showDeadLetter(letter)}>Show</button>` },
];
