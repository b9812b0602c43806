// The pauses that operators requested at run time, in force or ended. They are not polled, since the number of deliveries
// that expire is counted in the queues.
import { ClientName, ListingTime, LoadingNote } from "./parts.js";
import { Clock, SafeText, Until, html, now, number } from "./text.js";
import { ResumeButton, rowOf } from "./pauses.js";
import { Table } from "./tables.js";
import { api } from "./api.js";
import { loadPage } from "./following.js";

export async function loadPauses(_query, signal) {
  const { pauses } = await api("pauses", { signal, query: { expiring: true } });
  return { pauses, at: new Date(now()).toISOString() };
}

export function Pauses({ data }) {
  if (!data) return html`<${LoadingNote} />`;
  const { pauses, at } = data;
  const table = (caption, rows, columns, empty) =>
    html`<${Table} caption=${caption} rows=${rows} keyOf=${(pause) => pause.id} columns=${columns} empty=${empty} />`;
  return html`<p class="row between"><${ListingTime} at=${at} again=${loadPage}>Not refreshed automatically.<//></p>
    <section><h2>Paused now</h2>${table("Paused clients", pauses.filter((pause) => !pause.ended_at), [...COLUMNS, ...IN_FORCE],
      "No client is paused. The page of a client has the button.")}</section>
    <section><h2>Ended</h2>${table("Ended pauses", pauses.filter((pause) => pause.ended_at), [...COLUMNS, ...ENDED], "None.")}
      <p class="dim note">The last 200. Clients that the registry pauses (<code>paused: true</code>) are not listed.</p></section>`;
}

const COLUMNS = [
  { head: "Client", wide: true, cell: (pause) => html`<${ClientName} client=${pause} />` },
  { head: "Who", cell: (pause) => html`<${SafeText} text=${pause.who} limit=${40} middle />` },
  { head: "Reason", say: true, cell: (pause) => html`<${SafeText} text=${pause.reason} limit=${200} />` },
];
const IN_FORCE = [
  { head: "Until", cell: (pause) => html`<${Clock} at=${pause.until} withDate /> <span class="dim"><${Until} at=${pause.until} /></span>` },
  { head: "May expire before", num: true, cell: ({ expiring }) => (expiring === null ? "unknown" : number(expiring)) },
  { label: "Actions", act: true, cell: (pause) => html`<${ResumeButton} client=${rowOf(pause)} />` },
];
const ENDED = [
  { head: "Since", cell: (pause) => html`<${Clock} at=${pause.since} withDate />` },
  { head: "Ended", cell: (pause) => html`<${Clock} at=${pause.ended_at} withDate />` },
  { head: "By", cell: (pause) => (pause.ended_by ? html`<${SafeText} text=${pause.ended_by} limit=${40} middle />` : "its end") },
];
