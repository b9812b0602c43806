// Replay, discard, cancel: what a filter means, with a dry run first and the number on the button.
import { Account, GoesOn, doneBy, watch } from "./jobs.js";
import { Dialog, Meant, Typed, changeDialog, closeDialog, focusClose, newId, openDialog, typedRightly } from "./dialogs.js";
import { Trouble } from "./parts.js";
import { api, narrowed } from "./api.js";
import { clock, counted, html, listed, now, number, sum } from "./text.js";

const HOUR = 3_600_000;
const AGES = { "1h": HOUR, "24h": 24 * HOUR, "7d": 168 * HOUR };
export const NAMELESS = "would_end_newer_sessions"; // why a letter stays that names no session

const ACTIONS = {
  replay: {
    title: "Replay dead letters",
    would: "would be delivered again",
    verb: "Replay",
    things: ["letter"],
    act: (filter) => api("dead-letters/replay", { body: filter }),
  },
  discard: {
    title: "Discard dead letters",
    would: "would be deleted for good",
    verb: "Delete",
    things: ["letter"],
    typed: "Their clients are never told of these logouts.",
    act: (filter) => api("dead-letters", { method: "DELETE", query: filter }),
  },
  cancel: {
    title: "Cancel what waits",
    would: "would be deleted for good",
    verb: "Cancel",
    things: ["delivery", "deliveries"],
    typed: "Their clients are never told of these logouts.",
    act: (filter) => api("waiting", { method: "DELETE", query: filter }),
  },
};

/** What a filter means at this moment: what comes later stays. Everything must be asked for by name. */
export function fixed(filter, until) {
  const given = narrowed({ ...filter, until });
  if (AGES[given.since]) given.since = new Date(now() - AGES[given.since]).toISOString();
  if (!Object.keys(given).some((name) => name !== "until")) given.all = true;
  return given;
}

/** Open the dialog, and count without changing anything. */
export async function beginRepair(action, filter, until) {
  const dialog = openDialog({ kind: "repair", id: newId(), still: true, action, filter: fixed(filter, until) });
  try {
    changeDialog(dialog, { dry: { kind: action, ...(await ACTIONS[action].act({ ...dialog.filter, dry_run: true })) } });
  } catch (problem) {
    changeDialog(dialog, { problem });
  }
}

/** How many go, by what the dry run told and whether those without a session are ticked. */
export const going = (dry, nameless) => doneBy(dry) + (nameless ? dry.kept?.[NAMELESS] ?? 0 : 0);

/**
 * What holds a job to its dry run. `until` holds letters to those that were counted; what waits has none, and a count that
 * ended early is not of all: then the number is the limit.
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
  const { until, ...rest } = dialog.filter;
  const count = dry ? going(dry, dialog.nameless) : 0;
  const { typed } = ACTIONS[dialog.action];
  const ready = count > 0 && !busy && (!typed || typedRightly(dialog, count));
  return html`<${Dialog} title=${title}>
    <${Meant} filter=${{ ...rest, ...(until && { until: `${clock(until, true)}: what came later stays` }) }} />
    ${dialog.problem && html`<${Trouble} problem=${dialog.problem} />`}
    ${dry ? html`<${Counted} dialog=${dialog} count=${count} />` : !dialog.problem && html`<${Counting} />`}
    ${typed && count > 0 && html`<${Typed} dialog=${dialog} count=${count}>${typed}<//>`}
    <footer><button type="button" class="quiet" onClick=${closeDialog} autofocus>${typed ? "Keep them" : "Cancel"}</button>
      <button type="button" class=${typed ? "danger" : "main"} disabled=${!ready} onClick=${() => carryOut(dialog)}>
        ${dry ? `${verb} ${counted(count, ...things)}` : "…"}</button></footer><//>`;
}

export const Counting = () => html`<p role="status">Counting, without changing anything …</p>`;

function Counted({ dialog, count }) {
  const { dry, nameless } = dialog;
  const { [NAMELESS]: _nameless, ...kept } = dry.kept ?? {};
  return html`<p class="count" role="status"><b>${number(count)}</b> ${ACTIONS[dialog.action].would}.</p>
    ${sum(dry.by_reason) > 0 && html`<p class="dim">${listed(dry.by_reason)}</p>`}
    ${dry.more && html`<p class="band warn">There are more: counting took too long. Do this, then look again.</p>`}
    <${Nameless} dry=${dry} ticked=${nameless} tick=${(on) => changeDialog(dialog, { nameless: on })} />
    ${sum(kept) > 0 && html`<p class="band warn">${number(sum(kept))} stay whatever is ticked: ${listed(kept)}</p>`}`;
}

/** Letters that name no session stay unless they are ticked, since they may end a session that began later. */
export function Nameless({ dry, ticked, tick }) {
  const count = dry.kept?.[NAMELESS] ?? 0;
  if (!count) return null;
  return html`<label class="band warn tick">
    <input type="checkbox" checked=${Boolean(ticked)} onChange=${(event) => tick(event.target.checked)} />
    <span><b>Also the ${counted(count, "letter")} without a session.</b> Each names its user and no session (no
      ${" "}<code>sid</code>), and is old: it would end all sessions that the user has at the client, those that began since
      ${" "}too.</span></label>`;
}
