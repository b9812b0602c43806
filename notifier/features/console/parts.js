// What pages are made of: text that cannot deceive, moments, chips, tables, plots, the runbook's Markdown.
import { h } from "./preact.mjs";
import htm from "./htm.mjs";

export const html = htm.bind(h);
let ahead = 0; // milliseconds that the service's clock is ahead of the browser's
export const setClock = (at) => { ahead = Date.parse(at) - Date.now(); };
export const now = () => Date.now() + ahead;

// ── text ──

const ODD = /([\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb])/;
/** Text of others. What would reorder or hide it is shown as its code. */
export function Said({ text, most = 400, className, lines = false }) {
  const whole = String(text ?? "");
  const shown = whole.length > most ? `${whole.slice(0, most)}…` : whole;
  const parts = shown.split(ODD).map((part, nth) => nth % 2 && !(lines && part === "\n")
    ? html`<span class="odd">U+${part.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}</span>` : part);
  return html`<bdi class=${className} title=${whole.length > Math.min(most, 60) ? whole.slice(0, 2000) : undefined}>${parts}</bdi>`;
}

export const number = (value) => (value ?? 0).toLocaleString("en");
export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

export function inWords(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

const two = (value) => String(value).padStart(2, "0");
export function clock(moment, withDate = false) {
  const d = new Date(moment);
  const time = `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`;
  return withDate || now() - d > 72e6 ? `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${time}` : time;
}

export function Ago({ at, none = "–", suffix = " ago" }) {
  if (!at) return html`<span class="dim">${none}</span>`;
  return html`<time datetime=${at} title=${clock(at, true)}>${inWords((now() - Date.parse(at)) / 1000)}${suffix}</time>`;
}

export function Until({ at, none = "–" }) {
  if (!at) return html`<span class="dim">${none}</span>`;
  const left = (Date.parse(at) - now()) / 1000;
  if (left < -15) return html`<span class="dim">${none}</span>`;
  return html`<time datetime=${at} title=${clock(at, true)}>${left > 0.5 ? `in ${inWords(left)}` : "now"}</time>`;
}

export const Clock = ({ at }) => html`<time datetime=${at} title=${clock(at, true)}>${clock(at)}</time>`;

// ── words ──

export const STATES = {
  rests: ["down", "bad", "Its last attempts failed. It rests, and is tried now and then."],
  tried: ["tried now", "bad", "It is down, and an attempt is under way."],
  fails: ["fails", "warn", "Its last attempt failed. The next deliveries are still tried."],
  put_off: ["held back", "warn", "Its deliveries are put off before any attempt: the reason says why."],
  untried: ["not tried", "", "No worker has called it since it started."],
  well: ["no trouble", "good", "Its last attempt went well, or none was needed."],
};
export const TROUBLES = {
  queue: "The queue is away", publishing_blocked: "The broker takes no message", signing_key_missing: "A signing key is not published",
  reload_failed: "The configuration cannot be read", reload_refused: "A reload was refused", registry_source_failed: "A registry source cannot be read",
  unknown_issuer: "Events for an issuer nobody knows", unknown_client: "Events for a client nobody knows", unknown_version: "Messages of a later release",
  signer_failing: "The signer fails", signing: "No token can be signed that clients can verify", encryption: "No token can be encrypted",
  tls_files: "TLS files cannot be used", proxy: "The proxy refuses", jwks_unread: "A JWK Set cannot be read", restart_needed: "A changed setting waits for a restart",
};
export const MILD = new Set(["jwks_unread", "restart_needed"]);
export const KINDS = { delivered: "good", recovered: "good", failed: "warn", put_off: "warn", down: "bad", dead: "bad" };

export function Chip({ state }) {
  const [word, tone, why] = STATES[state] ?? [state, "warn", ""];
  return html`<span class="chip ${tone}" title=${why}>${word}</span>`;
}

export const clientLink = (client) => `#/client?${new URLSearchParams({ iss: client.iss, client_id: client.client_id })}`;

/** A client's name; with its issuer where there are several. */
export function Who({ client, issuers = 1, plain = false }) {
  const name = html`<${Said} text=${client.client_id || "(a whole event)"} most=${80} />`;
  return html`<span class="who">${plain || !client.client_id ? name : html`<a href=${clientLink(client)}>${name}</a>`}
    ${issuers > 1 && html`${" "}<span class="iss"><${Said} text=${host(client.iss)} most=${60} /></span>`}</span>`;
}
export const host = (iss) => String(iss ?? "").replace(/^https:\/\//, "");

/** What a client answered last: the reason, the status, and the start of its answer. */
export function Answer({ row, explain }) {
  if (!row.reason) return html`<span class="dim">–</span>`;
  return html`<span class="answer">
    <button type="button" class="word" onClick=${() => explain(row.reason)} title="What it means, and what to do">${row.reason}</button>
    ${row.status != null && html` <b>${row.status}</b>`} ${row.text && html`<${Said} text=${row.text} most=${200} className="quote" />`}</span>`;
}

// ── pieces ──

export function Table({ columns, rows, keyOf, empty, caption }) {
  if (!rows.length) return html`<p class="empty">${empty}</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table>
    <caption class="hidden">${caption}</caption>
    <thead><tr>${columns.map((c) => html`<th scope="col" class=${c.num ? "num" : ""}>${c.head || html`<span class="hidden">${c.label}</span>`}</th>`)}</tr></thead>
    <tbody>${rows.map((row, nth) => html`<tr key=${keyOf ? keyOf(row, nth) : nth} class=${row.tone ?? ""}>
      ${columns.map((c) => html`<td class=${[c.num && "num", c.wide && "wide", c.say && "say", c.act && "act"].filter(Boolean).join(" ")} data-head=${c.label ?? (typeof c.head === "string" ? c.head : "")}>${c.cell(row)}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

export function Pages({ skip, rows, total, go }) {
  if (total <= rows && !skip) return null;
  const last = Math.min(total, skip + rows);
  return html`<nav class="pages" aria-label="Pages of the table">
    <button type="button" disabled=${!skip} onClick=${() => go(Math.max(0, skip - rows))}>‹ Before</button>
    <span>${number(skip + 1)} to ${number(last)} of ${number(total)}</span>
    <button type="button" disabled=${last >= total} onClick=${() => go(skip + rows)}>Next ›</button></nav>`;
}

/** Bars on a time axis. `bars`: [moment, good, bad, dead] a slot; as SVG, since its colours then follow the theme. */
export function Plot({ bars, slots, width, unit, label, at, onAt }) {
  const most = Math.max(1, ...bars.map(([, good, bad, dead]) => good + bad + dead));
  const shown = at == null ? null : bars[at];
  const sum = bars.reduce((sums, [, ...counts]) => sums.map((had, nth) => had + counts[nth]), [0, 0, 0]);
  const move = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    onAt?.(Math.max(0, Math.min(slots - 1, Math.floor(((event.clientX - box.left) / box.width) * slots))));
  };
  const [moment, good, bad, dead] = shown ?? [null, ...sum];
  return html`<figure class="plot">
    <svg viewBox="0 0 ${slots} 100" preserveAspectRatio="none" role="img" aria-label="${label}: ${number(sum[0])} delivered, ${number(sum[1])} failed attempts, ${number(sum[2])} given up."
        onPointerMove=${move} onPointerLeave=${() => onAt?.(null)}>
      ${[25, 50, 75].map((y) => html`<line class="grid" x1="0" x2=${slots} y1=${y} y2=${y} />`)}
      ${bars.map(([, good, bad, dead], nth) => {
        const total = good + bad + dead;
        if (!total) return null;
        const unitHeight = 96 / most, hDead = dead && Math.max(1.5, dead * unitHeight), hBad = bad && Math.max(1.5, bad * unitHeight), hGood = good * unitHeight;
        return html`<g key=${nth}>${good > 0 && html`<rect class="good" x=${nth + 0.08} width="0.84" y=${100 - hGood} height=${hGood} />`}
          ${bad > 0 && html`<rect class="warn" x=${nth + 0.08} width="0.84" y=${Math.max(0, 100 - hGood - hBad)} height=${hBad} />`}
          ${dead > 0 && html`<rect class="bad" x=${nth + 0.08} width="0.84" y=${Math.max(0, 100 - hGood - hBad - hDead)} height=${hDead} />`}</g>`;
      })}
      ${shown && html`<rect class="cursor" x=${at} width="1" y="0" height="100" />`}
    </svg>
    <figcaption><span class="most">${number(Math.round((most / width) * 10) / 10)}/${unit}</span>
      <span>${moment == null ? label : clock(moment)}</span>
      <span class="key good">${number(good)} delivered</span><span class="key warn">${number(bad)} failed</span><span class="key bad">${number(dead)} given up</span></figcaption>
  </figure>`;
}

/** A dialog of the browser's own: it keeps the focus, and Escape closes it. */
export function Dialog({ title, children, onClose, wide = false, side = false }) {
  const open = (element) => { if (element && !element.open) element.showModal(); };
  return html`<dialog ref=${open} class=${side ? "side" : wide ? "wide" : ""} aria-labelledby="dialog-title" onClose=${onClose}
      onClick=${(event) => event.target === event.currentTarget && side && event.currentTarget.close()}>
    <div class="box"><header><h2 id="dialog-title">${title}</h2>
      <button type="button" class="quiet" aria-label="Close" onClick=${(event) => event.currentTarget.closest("dialog").close()}>✕</button></header>
    ${children}</div></dialog>`;
}

// ── the runbook's Markdown: paragraphs, lists, code, bold; nothing in it becomes markup ──

const SPAN = /(`[^`]+`|\*\*[^*]+\*\*|\[[^\]]+\]\([^)]+\))/;
const spans = (text) => text.split(SPAN).map((part) =>
  part.startsWith("`") ? html`<code>${part.slice(1, -1)}</code>`
    : part.startsWith("**") ? html`<strong>${part.slice(2, -2)}</strong>`
      : part.startsWith("[") && part.includes("](") ? part.slice(1, part.indexOf("]")) : part);

export function Markdown({ text }) {
  const blocks = [];
  let fence = null;
  for (const line of String(text).split("\n")) {
    const last = blocks.at(-1);
    if (line.startsWith("```")) { if (fence) fence = null; else blocks.push((fence = { kind: "pre", lines: [] })); }
    else if (fence) fence.lines.push(line);
    else if (/^\s*(\d+\.|-) /.test(line)) {
      const kind = /^\s*\d/.test(line) ? "ol" : "ul", item = line.replace(/^\s*(\d+\.|-) /, "");
      if (last?.kind === kind) last.lines.push(item); else blocks.push({ kind, lines: [item] });
    } else if (line.trim()) {
      if (last?.kind === "p") last.lines.push(line); else blocks.push({ kind: "p", lines: [line] });
    } else if (last && last.kind !== "ol" && last.kind !== "ul") blocks.push({ kind: "gap", lines: [] });
  }
  return html`<div class="markdown">${blocks.map(({ kind, lines }) =>
    kind === "p" ? html`<p>${spans(lines.join(" "))}</p>`
      : kind === "pre" ? html`<pre><code>${lines.join("\n")}</code></pre>`
        : kind === "ol" ? html`<ol>${lines.map((item) => html`<li>${spans(item)}</li>`)}</ol>`
          : kind === "ul" ? html`<ul>${lines.map((item) => html`<li>${spans(item)}</li>`)}</ul>` : null)}</div>`;
}
