// Signing keys and registry sources: whether each issuer publishes its keys, and whether each source could be read.
import { Ago, SafeText, host, html, formatDuration, number } from "./text.js";
import { LoadingNote } from "./parts.js";
import { ReadSources } from "./sources.js";
import { Table } from "./tables.js";
import { api, hasScope, coversAllIssuers } from "./api.js";
import { explain } from "./dialogs.js";
import { state } from "./state.js";

const MISSING = "NotifierSigningKeyNotPublished";

export const loadKeys = (_query, signal) => api("keys", { signal });

const keyOf = ({ iss, kid, use }) => `${iss} ${kid} ${use}`;

export function Keys({ data }) {
  const workers = state.service?.workers.each ?? [];
  const sources = workers.flatMap(({ worker, registry }) => registry.map((source) => ({ ...source, worker })));
  return html`<section><h2>Signing keys</h2>${!data ? html`<${LoadingNote} />` : html`<${Table} caption="Signing keys"
      rows=${data.keys} keyOf=${keyOf} columns=${KEYS} empty="No issuer is configured." />`}</section>
    <section><h2>Registry sources${" "}${hasScope("repair") && coversAllIssuers() && html`<${ReadSources} />`}</h2>
      <${Table} caption="Registry sources" rows=${sources} keyOf=${(source) => `${source.worker} ${source.name}`}
        columns=${SOURCES} empty="No source besides the files of the configuration." /></section>`;
}

function Published({ published }) {
  if (published === true) return html`<span class="chip good">published</span>`;
  if (published === false) {
    return html`<span class="chip bad">missing</span>${" "}
      <button type="button" onClick=${() => explain(MISSING)}>What to do</button>`;
  }
  const why = "The issuer's JWK Set was not read, or jwks_uri is not configured";
  return html`<span class="chip warn" title=${why}>unknown</span>`;
}

const KEYS = [
  { head: "Issuer", wide: true, cell: (key) => html`<${SafeText} text=${host(key.iss)} />` },
  { head: "Key", cell: (key) => html`<code><${SafeText} text=${key.kid} limit=${16} /></code>` },
  { head: "Algorithms", cell: (key) => key.algs.join(" ") },
  { head: "Use", cell: (key) => (key.use === "signs" ? "in use" : "upcoming") },
  { head: "Published", cell: (key) => html`<${Published} published=${key.published} />` },
  { head: "Published since", cell: (key) => html`<${Ago} at=${key.published_since} suffix="" />` },
  { head: "Created", cell: (key) => html`<${Ago} at=${key.made_at} />` },
];

function SourceStateChip({ source }) {
  if (source.up) return html`<span class="chip good">up</span>`;
  return source.problem ? html`<span class="chip bad">failing</span>` : html`<span class="chip warn">not read yet</span>`;
}

const SOURCES = [
  { head: "Source", wide: true, cell: (source) => html`<${SafeText} text=${source.name} />` },
  { head: "Kind", cell: (source) => source.kind },
  { head: "Worker", cell: (source) => html`<${SafeText} text=${source.worker} limit=${60} />` },
  { head: "State", cell: (source) => html`<${SourceStateChip} source=${source} />` },
  { head: "Last read", cell: (source) => (source.age == null ? "–" : `${formatDuration(source.age)} ago`) },
  { head: "Clients", num: true, cell: (source) => number(source.clients) },
  { head: "Problem", wide: true, cell: (source) => source.problem && html`<${SafeText} text=${source.problem} className="quote" />` },
];
