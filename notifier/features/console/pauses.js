// Pause a client at run time, and resume it: a dialog asks for the end and the reason, and shows the result.
import { Dialog, changeDialog, closeDialog, focusClose, newId, openDialog } from "./dialogs.js";
import { Clock, SafeText, counted, html, toPlainText } from "./text.js";
import { Trouble } from "./parts.js";
import { api, hasScope } from "./api.js";
import { refreshAfterJob } from "./following.js";

const MAX_REASON_LENGTH = 200;
const SPANS = [["15m", "15 minutes"], ["1h", "1 hour"], ["4h", "4 hours"], ["24h", "a day"], ["", "until …"]];

/** Open the dialog of a client. Nothing is sent yet. `act`: `pause` or `resume`. */
const begin = (act, { client_id, iss, ...row }) =>
  openDialog({ kind: "pause", id: newId(), still: true, act, client: { client_id, iss }, row, span: "1h", until: "", reason: "" });

async function carryOut(dialog) {
  const { act, client, span, until, reason, withFollowers } = dialog;
  const end = span ? { for: span } : { until: new Date(until).toISOString() };
  const details = { ...(act === "pause" && { ...end, reason: reason.trim() }), ...(withFollowers && { followers: true }) };
  changeDialog(dialog, { busy: true, problem: null });
  try {
    changeDialog(dialog, { result: await api(act, { body: { ...client, ...details } }), busy: false });
    focusClose();
  } catch (problem) {
    changeDialog(dialog, { busy: false, problem });
  }
  refreshAfterJob();
}

/** Who paused a client, until when, and why. */
export const PauseText = ({ client: { paused_by: who, paused_until: until, pause_reason: reason } }) => html`by
  ${" "}<${SafeText} text=${who} limit=${80} /> until <${Clock} at=${until} withDate />: <${SafeText} text=${reason} limit=${200} />`;

export function PauseDialog({ dialog }) {
  const { act, client, busy, problem, result, span, until, reason } = dialog;
  const isPause = act === "pause";
  const ready = !busy && (!isPause || (reason.trim() && (span || until)));
  return html`<${Dialog} title=${`${isPause ? "Pause" : "Resume"} ${toPlainText(client.client_id)}`}>
    ${problem && html`<${Trouble} problem=${problem} />`}
    ${result ? html`<${Result} dialog=${dialog} />` : isPause ? html`<${Fields} dialog=${dialog} />`
      : html`<p>Its pending deliveries are sent at once, as fast as the client and its limits allow.</p>`}
    ${!result && dialog.row.paused_until && html`<p class="band warn">Paused <${PauseText} client=${dialog.row} /></p>`}
    <footer><button type="button" class="quiet" onClick=${closeDialog}>${result ? "Close" : "Cancel"}</button>
      ${!result && html`<button type="button" class="main" autofocus=${!isPause} disabled=${!ready} onClick=${() => carryOut(dialog)}>
        ${isPause ? "Pause it" : "Resume it"}</button>`}</footer><//>`;
}

function Fields({ dialog }) {
  const take = (name) => (event) => changeDialog(dialog, { [name]: event.target.value });
  return html`<p>No worker calls the client until then. Its logouts wait, and its sessions stay open.</p>
    <div class="filters"><label>For <select value=${dialog.span} onChange=${take("span")}>
        ${SPANS.map(([span, words]) => html`<option value=${span}>${words}</option>`)}</select></label>
      ${!dialog.span && html`<label>Until <input type="datetime-local" step="1" max="9999-12-31T23:59:59" value=${dialog.until}
        onInput=${take("until")} /></label>`}</div>
    <label class="typed">Reason, which other operators see
      <input autocomplete="off" maxlength=${MAX_REASON_LENGTH} autofocus value=${dialog.reason} title=${dialog.reason} onInput=${take("reason")} /></label>`;
}

/** The result of the request: which workers apply it, and what the operator should know. */
function Result({ dialog }) {
  const { workers: { seen, applied, late }, paused = [], former, expiring, followers, note } = dialog.result;
  return html`<div role="status">
    <p>${dialog.act === "pause" ? html`Paused <${PauseText} client=${rowOf(paused[0])} />.` : former.length ? "It is resumed." : "It was not paused."}
      ${" "}${applied.length} of ${counted(seen, "worker")} applied this.</p>
    ${late.map(({ worker, problem }) => html`<p class="band warn"><${SafeText} text=${worker} limit=${60} />: <${SafeText} text=${problem} /></p>`)}
    ${dialog.act === "pause" && former.map((pause) => html`<p class="band">It replaces: paused <${PauseText} client=${rowOf(pause)} />.</p>`)}
    ${expiring === null && html`<p class="band warn">Unknown: how many pending deliveries may expire before its end.</p>`}
    ${expiring > 0 && html`<p class="band warn">${counted(expiring, "pending delivery", "pending deliveries")} may expire before its end.</p>`}
    ${followers.length > 0 && html`<p class="band warn">${dialog.act === "pause" ? "Still called" : "Still paused"}, since each has its own pause:
      ${" "}<${SafeText} text=${followers.join(", ")} />. <button type="button" disabled=${dialog.busy}
        onClick=${() => carryOut({ ...dialog, withFollowers: true })}>${dialog.act === "pause" ? "Pause" : "Resume"} these too</button></p>`}
    ${note && html`<p class="band warn"><${SafeText} text=${note} /></p>`}</div>`;
}

/** Return the members of a client's row that a pause has. */
export const rowOf = ({ client_id, iss, who, until, reason }) =>
  ({ client_id, iss, paused_by: who, paused_until: until, pause_reason: reason });

/** The buttons of a client: pause it, or change its pause, or resume it. */
export const PauseButtons = ({ client }) => hasScope("repair") && html`<button type="button" onClick=${() => begin("pause", client)}
    title="Send it nothing for a while: its logouts wait">${client.paused_until ? "Change the pause …" : "Pause …"}</button>
  ${client.paused_until && html`<${ResumeButton} client=${client} />`}`;

export const ResumeButton = ({ client }) => hasScope("repair") && html`<button type="button" class="do"
  aria-label=${`Resume ${toPlainText(client.client_id)} …`} onClick=${() => begin("resume", client)}>Resume …</button>`;
