// For a client that was repaired: one dialog retries it and replays its dead letters, and shows the progress.
import { JobProgress, ContinuesNote, followJob } from "./jobs.js";
import { Dialog, changeDialog, closeDialog, focusClose, newId, openDialog } from "./dialogs.js";
import { CountingNote, RateField, WITHOUT_SESSION, WithoutSessionOption, fixFilter, jobLimits, rateOf, repairCount } from "./repairs.js";
import { Trouble } from "./parts.js";
import { api, hasScope } from "./api.js";
import { beginCanary } from "./canary.js";
import { counted, html, formatCounts, now, number, toPlainText, sum } from "./text.js";
import { loadPage } from "./following.js";

/** Open the dialog, and count the deliveries to retry and the dead letters to replay. */
async function beginResolved({ client_id, iss }) {
  const filter = fixFilter({ client_id, iss }, new Date(now()).toISOString());
  const dialog = openDialog({ kind: "resolved", id: newId(), still: true, client: { client_id, iss }, filter });
  try {
    const [waits, letters] = await Promise.all([
      api("retry", { body: { client_id, iss, dry_run: true } }),
      api("dead-letters/replay", { body: { ...filter, dry_run: true } }),
    ]);
    changeDialog(dialog, { waits, letters: { kind: "replay", ...letters } });
  } catch (problem) {
    changeDialog(dialog, { problem });
  }
}

/** Retry the client first, so that replays start with its current state. */
async function carryOut(dialog) {
  const { client, filter, waits, letters, withoutSession, rate } = dialog;
  const jobs = [];
  const begin = async (path, body) => {
    jobs.push(followJob(await api(path, { body })));
    changeDialog(dialog, { jobs: [...jobs] });
    focusClose();
  };
  changeDialog(dialog, { busy: true, problem: null });
  try {
    if (waits.waited) await begin("retry", client);
    const limits = { ...jobLimits(letters, withoutSession), ...rateOf(rate) };
    if (repairCount(letters, withoutSession)) await begin("dead-letters/replay", { ...filter, ...limits });
  } catch (problem) {
    changeDialog(dialog, { busy: false, problem });
  }
  loadPage();
}

export function ResolvedDialog({ dialog }) {
  const { client, jobs, letters, problem } = dialog;
  const title = `Resolved: ${toPlainText(client.client_id)}`;
  return html`<${Dialog} title=${title}>
    ${problem && html`<${Trouble} problem=${problem} />`}
    ${jobs ? html`${jobs.map((id) => html`<${JobProgress} key=${id} id=${id} />`)}<${ContinuesNote} ids=${jobs} />`
      : letters ? html`<${Plan} dialog=${dialog} />` : !problem && html`<${CountingNote} />`}
    <footer><button type="button" class="quiet" onClick=${closeDialog} autofocus>${jobs ? "Close" : "Cancel"}</button>
      ${!jobs && html`<${Go} dialog=${dialog} />`}</footer><//>`;
}

function Go({ dialog }) {
  const { waits, letters, withoutSession, busy } = dialog;
  const count = letters ? repairCount(letters, withoutSession) : 0;
  const text = [
    waits?.waited && `retry ${counted(waits.waited, "delivery", "deliveries")}`,
    count && `replay ${counted(count, "dead letter")}`,
  ].filter(Boolean).join(" and ");
  return html`<button type="button" class="main" disabled=${!text || busy} onClick=${() => carryOut(dialog)}>
    ${text ? text[0].toUpperCase() + text.slice(1) : waits ? "Nothing to do" : "…"}</button>`;
}

function Plan({ dialog }) {
  const { client, waits, letters, withoutSession } = dialog;
  const { [WITHOUT_SESSION]: _withoutSession, ...kept } = letters.kept ?? {};
  const count = repairCount(letters, withoutSession);
  return html`<p>If the client works again, all workers retry it now, and its dead letters are replayed.</p>
    <ul class="plan">
      <li>${waits.waited ? html`<b>${counted(waits.waited, "pending delivery", "pending deliveries")}</b>
          ${" "}${waits.waited === 1 ? "is" : "are"} retried now.` : "No pending deliveries."}
        ${waits.asked > 0 && ` ${number(waits.asked)} stay pending: the client requested a pause (Retry-After), or it is paused.`}</li>
      <li>${count ? html`<b>${counted(count, "dead letter")}</b> ${count === 1 ? "is" : "are"} replayed:
          ${" "}${formatCounts(letters.by_reason)}.` : "No dead letters to replay."}
        ${letters.more && " There are more: counting took too long. Replay these, then repeat."}
        ${sum(kept) > 0 && ` ${number(sum(kept))} are kept: ${formatCounts(kept)}.`}</li>
    </ul>
    <${WithoutSessionOption} dry=${letters} ticked=${withoutSession} tick=${(on) => changeDialog(dialog, { withoutSession: on })} />
    ${count > 0 && html`<div class="filters"><${RateField} dialog=${dialog} /></div>`}
    <p class="dim">Not sure?
      ${" "}<button type="button" class="quiet" onClick=${() => beginCanary(client)}>Send a canary first</button></p>`;
}

/** The button that opens the dialog. */
export const ResolvedButton = ({ client }) => hasScope("repair") && html`<button type="button" class="do"
  title="Retry this client now, and replay its dead letters" onClick=${() => beginResolved(client)}>Resolved …</button>`;
