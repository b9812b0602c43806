// Jobs: retries, replays, discards, cancellations. A worker runs them, also after this tab is closed.
import { Said, clock, counted, html, listed, number, sum } from "./text.js";
import { api } from "./api.js";
import { notice } from "./parts.js";
import { afterJob } from "./following.js";
import { state, update } from "./state.js";

const ASK_EVERY = 1000; // milliseconds
const FORGOTTEN = 404;
let timer = null;

/** Follow a job that has just started. Return its id. */
export function watch(job) {
  keep(job);
  timer ??= setTimeout(askAll, ASK_EVERY);
  return job.id;
}

/** Replace the state of a job. */
export function keep(job) {
  update({ jobs: new Map(state.jobs).set(job.id, job) });
}

const runningJobs = () => [...state.jobs.values()].filter((job) => job.state !== "ended");

async function askAll() {
  await Promise.all(runningJobs().map(askOne));
  timer = state.me && runningJobs().length ? setTimeout(askAll, ASK_EVERY) : null;
}

async function askOne(job) {
  const answer = await api(`jobs/${encodeURIComponent(job.id)}`).catch((problem) => withoutAnswer(job, problem));
  if (!state.jobs.has(job.id)) return;
  keep(answer);
  if (answer.state === "ended") onEnd(answer);
}

/** Handle a failed poll: an unknown job stopped with its worker; otherwise poll again. */
function withoutAnswer(job, { status }) {
  const gone = "its worker has stopped; see the log for what it did last";
  return status === FORGOTTEN ? { ...job, state: "ended", unfinished: gone } : job;
}

function onEnd(job) {
  notice(inShort(job), toneOf(job));
  afterJob();
}

/** Red if a delivery was given up, yellow if any remain, green when all are done. */
export function toneOf(job) {
  if (job.state !== "ended") return "";
  const { dead, waiting } = job.became ?? job;
  if (sum(dead)) return "bad";
  return job.unfinished || waiting || sum(job.kept) ? "warn" : "good";
}

/** Stop a job after its current step. */
export async function end(job) {
  try {
    keep(await api(`jobs/${encodeURIComponent(job.id)}`, { method: "DELETE" }));
  } catch (problem) {
    notice(problem.message, "bad");
  }
}

// ── the summary ──

const DONE = { replay: "replayed", discard: "discarded", cancel: "cancelled" };
const THINGS = { replay: ["dead letter"], discard: ["dead letter"], cancel: ["delivery", "deliveries"] };
export const doneBy = (job) => job[DONE[job.kind]] ?? 0;

/** The result of a job, or its progress, in one sentence. */
export function inShort(job) {
  if (job.kind === "retry") return `${job.client_id}: ${retried(job)}`;
  const words = [`${counted(doneBy(job), ...THINGS[job.kind])} ${DONE[job.kind]}`];
  if (sum(job.kept)) words.push(`${number(sum(job.kept))} kept: ${listed(job.kept)}`);
  if (sum(job.became?.dead)) words.push(`${number(sum(job.became.dead))} given up again: ${listed(job.became.dead)}`);
  if (job.unfinished) words.push(job.unfinished);
  return `${words.join("; ")}.`;
}

function retried(job) {
  if (job.waited === null) return "counting pending deliveries …";
  if (!job.waited) return "no pending deliveries.";
  const all = Math.max(job.waited, job.delivered); // excludes deliveries that a worker held or that came later
  const words = [`${number(job.delivered)} of ${counted(all, "delivery", "deliveries")} delivered`];
  if (sum(job.failed)) words.push(`${counted(sum(job.failed), "attempt")} failed (${job.text || listed(job.failed)})`);
  if (sum(job.dead)) words.push(`${number(sum(job.dead))} given up (${listed(job.dead)})`);
  if (job.waiting) words.push(`${number(job.waiting)} pending`);
  if (job.unfinished) words.push(job.unfinished);
  return `${words.join(", ")}.`;
}

const TITLES = { retry: "Retry", replay: "Replay", discard: "Discard", cancel: "Cancel" };
const PROGRESS = {
  waiting: "queued", running: "running", watching: "done; waiting for the results", ended: "ended",
};

/** The progress of a job, polled every second. */
export function Account({ id }) {
  const job = state.jobs.get(id);
  if (!job) return null;
  return html`<section class="band account ${toneOf(job)}" aria-label=${TITLES[job.kind]}>
    <p><b>${TITLES[job.kind]}</b>${" "}<span class="dim">${PROGRESS[job.state]}, since ${clock(job.began_at)}</span></p>
    <p><${Said} text=${inShort(job)} most=${600} /></p>
    ${job.became && html`<${Became} became=${job.became} />`}</section>`;
}

function Became({ became }) {
  const parts = [
    [became.delivered, "delivered", ""],
    [sum(became.failed), "attempts failed", listed(became.failed)],
    [sum(became.put_off), "deferred", listed(became.put_off)],
    [sum(became.dead), "given up again", listed(became.dead)],
    [became.skipped, "skipped", ""],
    [became.waiting, "pending", ""],
    [became.not_followed, "not followed: see the log", ""],
  ].filter(([count]) => count);
  return html`<ul class="became">${parts.map(([count, words, why]) => html`<li><b>${number(count)}</b> ${words}
    ${why && html`${" "}<span class="dim">${why}</span>`}</li>`)}
    ${became.unfinished && html`<li class="dim"><${Said} text=${became.unfinished} /></li>`}</ul>`;
}

/** The note that a job continues when the tab is closed. */
export const GoesOn = ({ ids }) => html`<p class="dim" role="status">${ids.every((id) => state.jobs.get(id)?.state === "ended")
  ? "It has ended." : "It continues if you close this dialog or the tab. The audit log shows its result."}</p>`;
