// Native dialogs: they keep the focus inside, Escape closes them, and the focus returns to its previous element.
import { Markdown } from "./markdown.js";
import { api } from "./api.js";
import { SafeText, html, toPlainText } from "./text.js";
import { afterDraw, state, update } from "./state.js";

let opener = null; // the element that had the focus before the first dialog

/** Open a dialog, instead of any open dialog. */
export function openDialog(dialog) {
  if (!state.dialog) opener = document.activeElement;
  update({ dialog });
  return dialog;
}

/** Change the dialog if it is still open. A late answer changes nothing. */
export function changeDialog(dialog, patch) {
  if (state.dialog?.id !== dialog.id || state.dialog.kind !== dialog.kind) return;
  update({ dialog: { ...state.dialog, ...patch } });
}

export function closeDialog() {
  if (!state.dialog) return;
  update({ dialog: null });
  const back = opener?.isConnected ? opener : document.querySelector("h1");
  afterDraw(() => back?.focus());
}

/** Focus the close button when the focused element was removed. */
export const focusClose = () => afterDraw(() => document.querySelector("dialog footer button")?.focus());

/** A new id for a dialog, so that an answer for a closed dialog does not change the next. */
let ids = 0;
export const newId = () => ++ids;

const show = (element) => element?.showModal();

/** The frame of a dialog. */
export function Dialog({ title, children, look = "", leave = closeDialog }) {
  const outside = (event) => event.target === event.currentTarget && look === "side" && leave();
  return html`<dialog ref=${show} class=${look} aria-labelledby="dialog-title" onClose=${leave} onClick=${outside}>
    <div class="box">
      <header><h2 id="dialog-title">${title}</h2>
        <button type="button" class="quiet" aria-label="Close" onClick=${leave}>✕</button></header>
      ${children}
    </div></dialog>`;
}

/** A filter as a list of names and values. */
export const FilterSummary = ({ filter: { all, ...given } }) => html`<dl class="facts">
  ${(all || !Object.keys(given).length) && html`<dt>which</dt><dd>all of them</dd>`}
  ${Object.entries(given).map(([name, value]) => html`<dt>${name.replaceAll("_", " ")}</dt>
    <dd><${SafeText} text=${[value].flat().join(", ")} limit=${300} /></dd>`)}</dl>`;

/** The field that requires the number before anything is deleted permanently. */
export const ConfirmationField = ({ dialog, count, children }) => html`<label class="typed">${children} Type <b>${count}</b> to confirm.
  <input inputmode="numeric" autocomplete="off" value=${dialog.typed ?? ""}
    onInput=${(event) => changeDialog(dialog, { typed: event.target.value })} /></label>`;
export const isConfirmed = (dialog, count) => (dialog.typed ?? "").replace(/[\s,.]/g, "") === String(count);

// ── explanations ──

/** Show the runbook's section about a reason, a cause, an alert. */
export async function explain(name) {
  const dialog = openDialog({ kind: "explain", id: newId(), name, text: null });
  try {
    changeDialog(dialog, await api(`explain/${encodeURIComponent(name)}`));
  } catch (problem) {
    changeDialog(dialog, { text: problem.status === 404 ? "The runbook has no section with this name." : problem.message });
  }
}

export function Explained({ dialog }) {
  return html`<${Dialog} look="side" title=${toPlainText(dialog.name)}>
    ${dialog.group && html`<p class="dim">${dialog.group}</p>`}
    ${dialog.text === null ? html`<p role="status">…</p>` : html`<${Markdown} text=${dialog.text} />`}<//>`;
}
