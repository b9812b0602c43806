// All clients, fifty per page, those with the most severe state first.
import { Ago, html, number } from "./text.js";
import { LoadingNote, Choice, Filters, IssuerChoice, Search, clientKey } from "./parts.js";
import { CLIENT_COLUMNS, Count, NEXT_ATTEMPT, answeredOf, isWhole } from "./overview_page.js";
import { Pagination, Table, holdRows, keepRowOrder } from "./tables.js";
import { api } from "./api.js";
import { changeQuery, pageAddress } from "./addresses.js";
import { state } from "./state.js";

const ROWS = 50;
const STATES = [["", "all"], ["troubled", "with problems"], ["rests", "unreachable"], ["tried", "probing"],
  ["hangs", "unresponsive"], ["fails", "failing"], ["put_off", "deferred"], ["paused", "paused"], ["well", "healthy"]];
const ORDERS = [["", "severity"], ["name", "name"], ["waits", "pending"]];

const COLUMNS = [
  ...CLIENT_COLUMNS,
  { head: "Delivered", num: true, cell: (c) => number(c.delivered) },
  { head: "Given up", num: true, cell: (c) => html`<${GivenUp} client=${c} />` },
  { head: "Last success", cell: (c) => html`<${Ago} at=${c.last_success} none=${c.tried ? "never" : "not tried"} />` },
  NEXT_ATTEMPT,
];

const GivenUp = ({ client: { client_id, iss, dead } }) =>
  dead ? html`<a href=${pageAddress("dead", { client_id, iss })}>${number(dead)}</a>` : html`<${Count} value=${0} />`;

export function Clients({ data, query }) {
  const counted = ([key, word]) => [key, data && key in data.states ? `${word} (${number(data.states[key])})` : word];
  return html`<${Filters} label="Filter clients">
      <${Search} name="q" label="Search" placeholder="id, name or address" value=${query.q} />
      <${Choice} name="state" label="State" value=${query.state} options=${STATES.map(counted)} />
      <${IssuerChoice} value=${query.iss} />
      <${Choice} name="order" label="Order by" value=${query.order} options=${ORDERS} /><//>
    ${!data ? html`<${LoadingNote} />` : html`<div ...${holdRows}>
      <${Table} caption="Clients" keyOf=${clientKey} rows=${keepRowOrder(data.clients, clientKey)} columns=${COLUMNS}
        empty="No client matches." />
      <${Pagination} skip=${data.skip} rows=${ROWS} total=${data.total} go=${(skip) => changeQuery({ skip })} />
      <p class="dim note">Delivered and given up: since the workers started${isWhole() ? "" : `, at ${answeredOf(state.service)}`}.</p></div>`}`;
}

export const loadClients = ({ q, state, iss, order, skip }, signal) =>
  api("clients", { signal, query: { q, state, iss, order, skip, rows: ROWS } });
