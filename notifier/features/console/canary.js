// The canary: one real logout token for a user and session that cannot exist, and the client's answer.
import { Dialog, changeDialog, closeDialog, newId, openDialog } from "./dialogs.js";
import { Findings } from "./findings.js";
import { Trouble } from "./parts.js";
import { api, hasScope } from "./api.js";
import { html, toPlainText } from "./text.js";

/** Open the dialog. Nothing is sent yet. */
export function beginCanary({ client_id, iss }) {
  openDialog({ kind: "canary", id: newId(), still: true, client: { client_id, iss } });
}

async function send(dialog) {
  changeDialog(dialog, { busy: true, problem: null, findings: null });
  try {
    const answer = await api("canary", { body: dialog.client });
    changeDialog(dialog, { busy: false, findings: answer.findings });
  } catch (problem) {
    changeDialog(dialog, { busy: false, problem });
  }
}

export function Canary({ dialog }) {
  const { client, busy, findings, problem } = dialog;
  return html`<${Dialog} title=${`Canary to ${toPlainText(client.client_id)}`}>
    <p>A canary is a real logout token for a user and a session that cannot exist. It checks keys, clocks, the token's form and
      the connection to the client, and ends no session. It is not queued, retried or counted.</p>
    ${problem && html`<${Trouble} problem=${problem} />`}
    ${busy && html`<p role="status">Waiting for the answer …</p>`}
    ${findings && html`<div role="status"><${Findings} findings=${findings} /></div>`}
    <footer><button type="button" class="quiet" onClick=${closeDialog}>Close</button>
      <button type="button" class="main" aria-disabled=${busy ? "true" : undefined} autofocus
        onClick=${() => busy || send(dialog)}>
        ${findings || problem ? "Send another" : "Send one canary"}</button></footer><//>`;
}

export const CanaryButton = ({ client }) => hasScope("repair") && html`<button type="button"
  onClick=${() => beginCanary(client)}>Canary …</button>`;
