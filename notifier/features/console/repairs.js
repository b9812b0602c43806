// Replay, discard or cancel all matches of a filter, with a dry run first and the number on the button.
import { JobProgress, ContinuesNote, doneCount, followJob } from "./jobs.js";
import { Dialog, FilterSummary, ConfirmationField, changeDialog, closeDialog, focusClose, newId, openDialog, isConfirmed } from "./dialogs.js";
import { Trouble, ClientName, clientKey } from "./parts.js";
import { api, withoutEmpty } from "./api.js";
import { SafeText, formatTime, counted, host, html, formatCounts, now, number, sum } from "./text.js";

const HOUR = 3_600_000;
const KEPT = 60_000; // milliseconds for the browser to save a file
const AGES = { "1h": HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR };
export const WITHOUT_SESSION = "would_end_newer_sessions"; // why a dead letter without `sid` stays

const ACTIONS = {
  replay: {
    title: "Replay dead letters",
    would: "will be delivered again",
    verb: "Replay",
    things: ["dead letter"],
    act: (filter) => api("dead-letters/replay", { body: filter }),
  },
  discard: {
    title: "Discard dead letters",
    would: "will be deleted permanently",
    verb: "Delete",
    things: ["dead letter"],
    typed: "Their clients will never be notified of these logouts.",
    copy: (filter) => api("dead-letters/export", { query: { ...filter, all: undefined }, file: true }),
    act: (filter) => api("dead-letters", { method: "DELETE", query: filter }),
  },
  cancel: {
    title: "Cancel pending deliveries",
    would: "will be deleted permanently",
    verb: "Cancel",
    things: ["delivery", "deliveries"],
    typed: "Their clients will never be notified of these logouts.",
    act: (filter) => api("waiting", { method: "DELETE", query: filter }),
  },
};

/** Return the API's filter for the present matches: with a fixed time, and with `all` if it would be empty. */
export function fixFilter(filter, given_up_until) {
  const given = withoutEmpty({ ...filter, given_up_until });
  if (AGES[given.since]) given.since = new Date(now() - AGES[given.since]).toISOString();
  if (!Object.keys(given).some((name) => name !== "given_up_until")) given.all = true;
  return given;
}

/** Open the dialog, and count. `until`: the end of the last session. */
export async function beginRepair(action, filter, given_up_until, until = "") {
  const fixed = fixFilter(filter, given_up_until);
  const wanted = until ? { ...fixed, until: new Date(until).toISOString() } : fixed;
  const recount = (moment) => beginRepair(action, filter, given_up_until, moment);
  const dialog = openDialog({ kind: "repair", id: newId(), still: true, action, filter: wanted, until, recount });
  try {
    changeDialog(dialog, { dry: { kind: action, ...(await ACTIONS[action].act({ ...dialog.filter, dry_run: true })) } });
  } catch (problem) {
    changeDialog(dialog, { problem });
  }
}

/** Return the number that a job will repair, by its dry run. `withoutSession`: include dead letters without `sid`. */
export const repairCount = (dry, withoutSession) => doneCount(dry) + (withoutSession ? dry.kept?.[WITHOUT_SESSION] ?? 0 : 0);

/**
 * Return the parameters that restrict a job to what its dry run counted. Dead letters are restricted by the filter's
 * `given_up_until`. For pending deliveries, and after an incomplete count, the number is the limit.
 */
export const jobLimits = (dry, withoutSession) => ({
  ...(withoutSession && { end_newer_sessions: true }),
  ...((dry.more || dry.kind === "cancel") && { limit: repairCount(dry, withoutSession) }),
});

async function carryOut(dialog) {
  const { action, filter, dry, withoutSession, rate } = dialog;
  changeDialog(dialog, { busy: true, problem: null });
  try {
    const limits = { ...jobLimits(dry, withoutSession), ...rateOf(rate) };
    changeDialog(dialog, { job: followJob(await ACTIONS[action].act({ ...filter, ...limits })) });
    focusClose();
  } catch (problem) {
    changeDialog(dialog, { busy: false, problem });
  }
}

/** Return the parameter of a rate that the operator typed. */
export const rateOf = (rate) => rate ? { rate: Number(rate) } : {};

/** The field for the number of dead letters that a replay delivers a second. */
export const RateField = ({ dialog }) => html`<label>At most a second
  <input type="number" min="0.001" max="100000" step="any" placeholder="no limit" value=${dialog.rate ?? ""}
    onInput=${(event) => changeDialog(dialog, { rate: event.target.value })} /></label>`;

/** The fields of a repair. A new end is counted again. */
const Options = ({ dialog }) => html`<div class="filters"><label>Sessions until
    <input type="datetime-local" step="1" max="9999-12-31T23:59:59" value=${dialog.until} disabled=${dialog.busy}
      onChange=${(event) => dialog.recount(event.target.value)} /></label>
  ${dialog.action === "replay" && html`<${RateField} dialog=${dialog} />`}</div>`;

export function Repair({ dialog }) {
  const { title, things, verb } = ACTIONS[dialog.action];
  const { dry, busy, job } = dialog;
  if (job) {
    return html`<${Dialog} title=${title}><${JobProgress} id=${job} /><${ContinuesNote} ids=${[job]} />
      <footer><button type="button" class="quiet" onClick=${closeDialog}>Close</button></footer><//>`;
  }
  const { given_up_until: until, ...rest } = dialog.filter;
  for (const name of ["since", "until"]) if (rest[name]) rest[name] = formatTime(rest[name], true);
  const count = dry ? repairCount(dry, dialog.withoutSession) : 0;
  const { typed } = ACTIONS[dialog.action];
  const ready = count > 0 && !busy && (!typed || isConfirmed(dialog, count));
  return html`<${Dialog} title=${title}>
    <${FilterSummary} filter=${{ ...rest, ...(until && { "given up until": `${formatTime(until, true)}: later ones are kept` }) }} />
    <${Options} dialog=${dialog} />
    ${dialog.problem && html`<${Trouble} problem=${dialog.problem} />`}
    ${dry ? html`<${DryRunResult} dialog=${dialog} count=${count} />` : !dialog.problem && html`<${CountingNote} />`}
    ${ACTIONS[dialog.action].copy && count > 0 && html`<${Export} dialog=${dialog} />`}
    ${typed && count > 0 && html`<${ConfirmationField} dialog=${dialog} count=${count}>${typed}<//>`}
    <footer><button type="button" class="quiet" onClick=${closeDialog} autofocus>${typed ? "Keep them" : "Cancel"}</button>
      <button type="button" class=${typed ? "danger" : "main"} disabled=${!ready} onClick=${() => carryOut(dialog)}>
        ${dry ? `${verb} ${counted(count, ...things)}` : "…"}</button></footer><//>`;
}

/** Save a copy of the dead letters before they are deleted, in the format of the export command. */
function Export({ dialog }) {
  const { exported } = dialog;
  const save = async () => {
    changeDialog(dialog, { exported: "…", problem: null });
    try {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(await ACTIONS[dialog.action].copy(dialog.filter));
      link.download = `dead-letters-${new Date(now()).toISOString().slice(0, 19).replaceAll(":", "")}.jsonl`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), KEPT);
      changeDialog(dialog, { exported: link.download });
    } catch (problem) {
      changeDialog(dialog, { exported: null, problem });
    }
  };
  return html`<p class="copy"><button type="button" disabled=${exported === "…"} onClick=${save}>Export first</button>
    ${" "}<span class="dim" role="status">${exported === "…" ? "Exporting …" : exported ? `Saved as ${exported}.`
      : "Saves all of them to a file that names users."}</span></p>`;
}

export const CountingNote = () => html`<p role="status">Counting, without changing anything …</p>`;

function DryRunResult({ dialog, count }) {
  const { dry, withoutSession } = dialog;
  const { [WITHOUT_SESSION]: _withoutSession, ...kept } = dry.kept ?? {};
  return html`<p class="count" role="status"><b>${number(count)}</b> ${ACTIONS[dialog.action].would}.</p>
    ${sum(dry.by_reason) > 0 && html`<p class="dim">${formatCounts(dry.by_reason)}</p>`}
    <${ByClient} dry=${dry} />
    ${dry.more && html`<p class="band warn">There are more: counting took too long. Do this, then repeat.</p>`}
    <${WithoutSessionOption} dry=${dry} ticked=${withoutSession} tick=${(on) => changeDialog(dialog, { withoutSession: on })} />
    ${sum(kept) > 0 && html`<p class="band warn">${number(sum(kept))} are kept in any case: ${formatCounts(kept)}</p>`}`;
}

function ByClient({ dry: { by_client = [], clients = 0 } }) {
  if (!by_client.length) return null;
  const more = clients - by_client.length;
  return html`<ul class="by-client" aria-label="By client">${by_client.map((one) => html`<li key=${clientKey(one)}>
      <span class="amount">${number(one.count)}</span>${" "}${one.client_id ? html`<${ClientName} client=${one} />` : html`whole events
        ${" "}<span class="iss"><${SafeText} text=${host(one.iss)} limit=${60} /></span>`}</li>`)}
    ${more > 0 && html`<li class="dim">and ${counted(more, "more client")}</li>`}</ul>`;
}

/** Dead letters without `sid` stay unless ticked, since they may end a session that began later. */
export function WithoutSessionOption({ dry, ticked, tick }) {
  const count = dry.kept?.[WITHOUT_SESSION] ?? 0;
  if (!count) return null;
  return html`<label class="band warn tick">
    <input type="checkbox" checked=${Boolean(ticked)} onChange=${(event) => tick(event.target.checked)} />
    <span><b>Include ${counted(count, "dead letter")} without a session.</b> Without a <code>sid</code>, a replay
      ${" "}ends all sessions of the user at the client, also newer ones. So old dead letters without it are kept.</span></label>`;
}
