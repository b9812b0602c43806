// Tables and their pages. A row does not move while the pointer is on it.
import { html, number } from "./text.js";
import { state, update } from "./state.js";

/**
 * A table. A column has `head`, `cell(row)`, and a style: `num`, `wide`, `say` (takes the remaining width), `act`.
 * A column with an empty head has a `label` for screen readers. On a narrow screen each row is a card, with the heads
 * beside the cells: the roles keep it a table for screen readers.
 */
export function Table({ caption, columns, rows, keyOf, empty }) {
  if (!rows.length) return html`<p class="empty">${empty}</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${caption}><table role="table">
    <caption class="hidden">${caption}</caption>
    <thead role="rowgroup"><tr role="row">${columns.map(({ head, label, num }) => html`<th scope="col" role="columnheader" class=${num ? "num" : ""}>
      ${head ?? html`<span class="hidden">${label}</span>`}</th>`)}</tr></thead>
    <tbody role="rowgroup">${rows.map((row) => html`<tr key=${keyOf(row)} role="row" class=${row.gone ? "gone" : ""}>
      ${columns.map((column) => html`<${Cell} column=${column} row=${row} />`)}</tr>`)}</tbody>
  </table></div>`;
}

const LOOKS = ["num", "wide", "say", "act"];

const Cell = ({ column, row }) => html`<td role="cell" class=${LOOKS.filter((look) => column[look]).join(" ")}
  data-head=${column.head ?? column.label}>${column.cell(row)}</td>`;

export function Pagination({ skip, rows, total, go }) {
  if (total <= rows && !skip) return null;
  const last = Math.min(total, skip + rows);
  return html`<nav class="pages" aria-label="Pages of the table">
    <button type="button" disabled=${!skip} onClick=${() => go(Math.max(0, skip - rows) || "")}>‹ Previous</button>
    <span>${number(Math.min(total, skip + 1))} to ${number(last)} of ${number(total)}</span>
    <button type="button" disabled=${last >= total} onClick=${() => go(skip + rows)}>Next ›</button></nav>`;
}

// ── nothing moves under the pointer ──

// A table is held by the pointer, or by the focus if the keyboard moved it. After a click the focus does not hold it.
const holds = { pointer: false, focus: false };

function hold(by, isHeld) {
  holds[by] = isHeld;
  update({ held: holds.pointer || holds.focus, pointed: holds.pointer });
}

/** Surrounds a polled table: while pointer or focus is in it, its rows do not move. */
export const holdRows = {
  onPointerEnter: () => hold("pointer", true),
  onPointerLeave: () => hold("pointer", false),
  onFocusin: (event) => hold("focus", event.target.matches(":focus-visible")),
  onFocusout: () => hold("focus", false),
};

let shown = []; // rows as shown on the page

/** Return the rows to show. While the table is held, rows keep their place: removed rows are marked, new rows are last. */
export function keepRowOrder(rows, keyOf) {
  if (!state.held) {
    shown = rows;
    return shown;
  }
  const remaining = new Map(rows.map((row) => [keyOf(row), row]));
  const kept = shown.map((row) => {
    const key = keyOf(row);
    const current = remaining.get(key);
    remaining.delete(key);
    return current ?? { ...row, gone: true };
  });
  shown = [...kept, ...remaining.values()];
  return shown;
}

/** Forget the rows of the previous page. */
export function resetTables() {
  shown = [];
  hold("pointer", false);
  hold("focus", false);
}
