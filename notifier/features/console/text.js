// Format untrusted texts, numbers and times.
import { h } from "./preact.mjs";
import htm from "./htm.mjs";

export const html = htm.bind(h);

// Invisible or reordering characters: control and format characters, line separators, unassigned code points.
const HIDDEN_CHARACTERS = /([\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}])/u;
const code = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
const MAX_WITHOUT_TITLE = 20; // characters: a column may cut longer text, so its title has the whole text
const MAX_TITLE = 2000;

/** Return untrusted text as a string with hidden characters as codes, for attributes and titles. */
export const toPlainText = (text) => String(text ?? "").split(HIDDEN_CHARACTERS).map((part, nth) => (nth % 2 ? code(part) : part)).join("");

/**
 * Shows untrusted text, up to `limit` characters, with hidden characters as codes. `lines` keeps line breaks. `middle`
 * leaves out the middle, since similar names differ at their ends. `whole` is the title, if the text is a part of it.
 */
export function SafeText({ text, limit = 400, className, lines = false, middle = false, whole = String(text ?? "") }) {
  const part = String(text ?? "");
  const end = middle ? Math.floor(limit / 2) : 0;
  const shown = part.length > limit ? `${part.slice(0, limit - end)}…${end ? part.slice(-end) : ""}` : part;
  const parts = shown.split(HIDDEN_CHARACTERS).map((part, nth) => {
    const odd = nth % 2 === 1 && !(lines && part === "\n");
    return odd ? html`<span class="odd">${code(part)}</span>` : part;
  });
  const title = whole !== part || whole.length > Math.min(limit, MAX_WITHOUT_TITLE) ? toPlainText(whole.slice(0, MAX_TITLE)) : undefined;
  return html`<bdi class=${className} title=${title}>${parts}</bdi>`;
}

const escaped = (odd) => odd.split("").map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");

/**
 * Untrusted text as JSON, in lines that people copy into a shell or a file: an apostrophe must not end a quoted text,
 * and the shown text must equal the copied text.
 */
export const quoteJson = (text) => JSON.stringify(text ?? null)
  .split(HIDDEN_CHARACTERS).map((part, nth) => (nth % 2 ? escaped(part) : part)).join("").replaceAll("'", "\\u0027");

export const host = (iss) => String(iss ?? "").replace(/^https:\/\//, "");

// ── numbers ──

export const number = (value) => (value ?? 0).toLocaleString("en");
export const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
/** "this one", or "these 12": the object of a button. */
export const thisOrThese = (count) => (count === 1 ? "this one" : `these ${number(count)}`);
export const sum = (counts) => Object.values(counts ?? {}).reduce((all, count) => all + count, 0);
/** A rate, with a decimal if it is small. */
export const rate = (value) => number(value < 10 ? Math.round(value * 10) / 10 : Math.round(value));
/** Counts by name as words: "expired 40, rejected_token 3". */
export const formatCounts = (counts) => Object.entries(counts ?? {}).map(([name, count]) => `${name} ${number(count)}`).join(", ");

// ── times: by the service's clock, since a browser's clock may be wrong ──

let clockOffset = 0; // milliseconds
export function setClock(at) {
  clockOffset = Date.parse(at) - Date.now();
}
export const now = () => Date.now() + clockOffset;

const UNITS = [["s", 1, 90], ["min", 60, 5400], ["h", 3600, 129_600], ["d", 86_400, Infinity]];

export function formatDuration(seconds) {
  const whole = Math.max(0, seconds);
  const [unit, size] = UNITS.find(([, , below]) => whole < below);
  return `${Math.round(whole / size)} ${unit}`;
}

export const formatAge = (at) => formatDuration((now() - Date.parse(at)) / 1000);

const DATE_OMITTED_MILLISECONDS = 20 * 3_600_000; // milliseconds after which a time without a date could be of yesterday
const two = (value) => String(value).padStart(2, "0");

/** A time in the browser's time zone. */
export function formatTime(moment, withDate = false) {
  const d = new Date(moment);
  const time = [d.getHours(), d.getMinutes(), d.getSeconds()].map(two).join(":");
  if (!withDate && now() - d < DATE_OMITTED_MILLISECONDS) return time;
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${time}`;
}

const Nothing = ({ none }) => html`<span class="dim">${none}</span>`;

/** A time. Its title is the time in the format of the log. */
export const Clock = ({ at, withDate, none = "–" }) =>
  at ? html`<time datetime=${at} title=${at}>${formatTime(at, withDate)}</time>` : html`<${Nothing} none=${none} />`;

export const Ago = ({ at, none = "–", suffix = " ago" }) =>
  at ? html`<time datetime=${at} title=${at}>${formatAge(at)}${suffix}</time>` : html`<${Nothing} none=${none} />`;

const OVERDUE_SECONDS = -15; // seconds: an attempt that is so late is not "now" but another worker's

export function Until({ at, none = "–" }) {
  const left = at ? (Date.parse(at) - now()) / 1000 : OVERDUE_SECONDS;
  if (left <= OVERDUE_SECONDS) return html`<${Nothing} none=${none} />`;
  return html`<time datetime=${at} title=${at}>${left > 0.5 ? `in ${formatDuration(left)}` : "now"}</time>`;
}
