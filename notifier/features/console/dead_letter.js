// One dead letter: its summary and its outcomes. The user is shown on request, which is audited.
import { Clock, SafeText, html } from "./text.js";
import { Dialog, changeDialog, newId, openDialog } from "./dialogs.js";
import { Answer, EventLink, Trouble, ClientName, RunbookLink } from "./parts.js";
import { api, hasScope } from "./api.js";
import { beginRepair } from "./repairs.js";

const path = (letter) => `dead-letters/${encodeURIComponent(letter.id)}`;

/** Open a dead letter, with the outcomes of its attempts. */
export async function showDeadLetter(letter) {
  const dialog = openDialog({ kind: "letter", id: newId(), letter });
  try {
    const { outcomes } = await api(path(letter), { query: { subject: "false" } });
    changeDialog(dialog, { outcomes });
  } catch (problem) {
    changeDialog(dialog, { problem });
  }
}

async function showWhole(dialog) {
  try {
    changeDialog(dialog, { whole: await api(path(dialog.letter)), problem: null });
  } catch (problem) {
    changeDialog(dialog, { problem });
  }
}

export function DeadLetter({ dialog }) {
  const { letter, outcomes, whole, problem } = dialog;
  const begin = (action) => () => beginRepair(action, { id: [letter.id] });
  return html`<${Dialog} look="side" title="Dead letter">
    <dl class="facts">
      <dt>Client</dt><dd><${ClientName} client=${letter} issuers=${2} limit=${1000} /></dd>
      <dt>Given up</dt><dd><${Clock} at=${letter.dead_since} withDate /></dd>
      <dt>Reason</dt><dd><${RunbookLink} name=${letter.reason} /></dd>
      <dt>Text</dt><dd><${SafeText} text=${letter.text} limit=${1000} className="quote" /></dd>
      <dt>Attempts</dt><dd>${letter.attempts}</dd>
      <dt>Event</dt><dd><${EventLink} id=${letter.event_id} whole /></dd>
      <dt>Dead letter</dt><dd><code><${SafeText} text=${letter.id} /></code></dd></dl>
    ${hasScope("repair") && html`<p class="row">
      <button type="button" onClick=${begin("replay")}>Replay this one …</button>
      <button type="button" class="danger-quiet" onClick=${begin("discard")}>Discard this one …</button></p>`}
    ${outcomes?.length > 0 && html`<h3>Attempts</h3><ol class="outcomes">${outcomes.map((each) => html`<li>
      <${Clock} at=${each.at} withDate />${" "}<${Answer} row=${each} /></li>`)}</ol>`}
    ${problem && html`<${Trouble} problem=${problem} />`}
    ${whole ? html`<h3>Content</h3>
        <pre class="json" tabindex="0"><${SafeText} text=${JSON.stringify(whole, null, 2)} limit=${20_000} lines /></pre>`
      : html`<p class="row"><button type="button" onClick=${() => showWhole(dialog)}>Show content</button>
        <span class="dim">It names the user (<code>sub</code>, <code>sid</code>). The audit log records that you viewed it.</span></p>`}<//>`;
}
