// Replay, discard or cancel all matches of a filter, with a dry run first and the number on the button.
import { Account, GoesOn, doneBy, watch } from "./jobs.js";
import { Dialog, Meant, Typed, changeDialog, closeDialog, focusClose, newId, openDialog, typedRightly } from "./dialogs.js";
import { Trouble, Who, clientKey } from "./parts.js";
import { api, narrowed } from "./api.js";
import { Said, clock, counted, host, html, listed, now, number, sum } from "./text.js";

const HOUR = 3_600_000;
const KEPT = 60_000; // milliseconds for the browser to save a file
const AGES = { "1h": HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR };
export const NAMELESS = "would_end_newer_sessions"; // why a dead letter without `sid` stays

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

/** The matches of a filter now; later ones stay. Selecting everything must be explicit. */
export function fixed(filter, given_up_until) {
  const given = narrowed({ ...filter, given_up_until });
  if (AGES[given.since]) given.since = new Date(now() - AGES[given.since]).toISOString();
  if (!Object.keys(given).some((name) => name !== "given_up_until")) given.all = true;
  return given;
}

/** Open the dialog, and count without changing anything. */
export async function beginRepair(action, filter, given_up_until) {
  const dialog = openDialog({ kind: "repair", id: newId(), still: true, action, filter: fixed(filter, given_up_until) });
  try {
    changeDialog(dialog, { dry: { kind: action, ...(await ACTIONS[action].act({ ...dialog.filter, dry_run: true })) } });
  } catch (problem) {
    changeDialog(dialog, { problem });
  }
}

/** The number to repair, by the dry run and by whether dead letters without `sid` are ticked. */
export const going = (dry, nameless) => doneBy(dry) + (nameless ? dry.kept?.[NAMELESS] ?? 0 : 0);

/**
 * The limits that bind a job to its dry run. `given_up_until` restricts dead letters to the counted ones. Pending
 * deliveries have no such time, and an incomplete count does not cover all: then the number is the limit.
 */
export const bounds = (dry, nameless) => ({
  ...(nameless && { end_newer_sessions: true }),
  ...((dry.more || dry.kind === "cancel") && { limit: going(dry, nameless) }),
});

async function carryOut(dialog) {
  const { action, filter, dry, nameless } = dialog;
  changeDialog(dialog, { busy: true, problem: null });
  try {
    changeDialog(dialog, { job: watch(await ACTIONS[action].act({ ...filter, ...bounds(dry, nameless) })) });
    focusClose();
  } catch (problem) {
    changeDialog(dialog, { busy: false, problem });
  }
}

export function Repair({ dialog }) {
  const { title, things, verb } = ACTIONS[dialog.action];
  const { dry, busy, job } = dialog;
  if (job) {
    return html`<${Dialog} title=${title}><${Account} id=${job} /><${GoesOn} ids=${[job]} />
      <footer><button type="button" class="quiet" onClick=${closeDialog}>Close</button></footer><//>`;
  }
  const { given_up_until: until, ...rest } = dialog.filter;
  const count = dry ? going(dry, dialog.nameless) : 0;
  const { typed } = ACTIONS[dialog.action];
  const ready = count > 0 && !busy && (!typed || typedRightly(dialog, count));
  return html`<${Dialog} title=${title}>
    <${Meant} filter=${{ ...rest, ...(until && { "given up until": `${clock(until, true)}: later ones are kept` }) }} />
    ${dialog.problem && html`<${Trouble} problem=${dialog.problem} />`}
    ${dry ? html`<${Counted} dialog=${dialog} count=${count} />` : !dialog.problem && html`<${Counting} />`}
    ${ACTIONS[dialog.action].copy && count > 0 && html`<${Export} dialog=${dialog} />`}
    ${typed && count > 0 && html`<${Typed} dialog=${dialog} count=${count}>${typed}<//>`}
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

export const Counting = () => html`<p role="status">Counting, without changing anything …</p>`;

function Counted({ dialog, count }) {
  const { dry, nameless } = dialog;
  const { [NAMELESS]: _nameless, ...kept } = dry.kept ?? {};
  return html`<p class="count" role="status"><b>${number(count)}</b> ${ACTIONS[dialog.action].would}.</p>
    ${sum(dry.by_reason) > 0 && html`<p class="dim">${listed(dry.by_reason)}</p>`}
    <${ByClient} dry=${dry} />
    ${dry.more && html`<p class="band warn">There are more: counting took too long. Do this, then repeat.</p>`}
    <${Nameless} dry=${dry} ticked=${nameless} tick=${(on) => changeDialog(dialog, { nameless: on })} />
    ${sum(kept) > 0 && html`<p class="band warn">${number(sum(kept))} are kept in any case: ${listed(kept)}</p>`}`;
}

function ByClient({ dry: { by_client = [], clients = 0 } }) {
  if (!by_client.length) return null;
  const more = clients - by_client.length;
  return html`<ul class="by-client" aria-label="By client">${by_client.map((one) => html`<li key=${clientKey(one)}>
      <span class="amount">${number(one.count)}</span>${" "}${one.client_id ? html`<${Who} client=${one} />` : html`whole events
        ${" "}<span class="iss"><${Said} text=${host(one.iss)} most=${60} /></span>`}</li>`)}
    ${more > 0 && html`<li class="dim">and ${counted(more, "more client")}</li>`}</ul>`;
}

/** Dead letters without `sid` stay unless ticked, since they may end a session that began later. */
export function Nameless({ dry, ticked, tick }) {
  const count = dry.kept?.[NAMELESS] ?? 0;
  if (!count) return null;
  return html`<label class="band warn tick">
    <input type="checkbox" checked=${Boolean(ticked)} onChange=${(event) => tick(event.target.checked)} />
    <span><b>Include ${counted(count, "dead letter")} without a session.</b> They are old and name a user but no session
      ${" "}(no <code>sid</code>): each would end all sessions of the user at the client, including newer ones.</span></label>`;
}
