// Jobs: retries, replays, discards, cancellations. A worker runs them, also after this tab is closed.
import { SafeText, formatTime, counted, html, formatCounts, number, sum } from "./text.js";
import { api } from "./api.js";
import { notice } from "./parts.js";
import { refreshAfterJob } from "./following.js";
import { state, update } from "./state.js";

const POLL_INTERVAL = 1000; // milliseconds
const UNKNOWN_JOB = 404;
let timer = null;

/** Follow a job that has just started. Return its id. */
export function followJob(job) {
  storeJob(job);
  timer ??= setTimeout(pollJobs, POLL_INTERVAL);
  return job.id;
}

/** Replace the state of a job. */
export function storeJob(job) {
  update({ jobs: new Map(state.jobs).set(job.id, job) });
}

const runningJobs = () => [...state.jobs.values()].filter((job) => job.state !== "ended");

async function pollJobs() {
  await Promise.all(runningJobs().map(pollJob));
  timer = state.me && runningJobs().length ? setTimeout(pollJobs, POLL_INTERVAL) : null;
}

async function pollJob(job) {
  const answer = await api(`jobs/${encodeURIComponent(job.id)}`).catch((problem) => onPollFailed(job, problem));
  if (!state.jobs.has(job.id)) return;
  storeJob(answer);
  if (answer.state === "ended") onEnd(answer);
}

/** Return the state of a job whose poll failed. A job that is unknown now (404) has stopped with its worker. */
function onPollFailed(job, { status }) {
  const text = "its worker has stopped; see the log for what it did last";
  return status === UNKNOWN_JOB ? { ...job, state: "ended", unfinished: text } : job;
}

function onEnd(job) {
  notice(summarize(job), toneOf(job));
  refreshAfterJob();
}

/** Red if a delivery was given up, yellow if any remain, green when all are done. */
export function toneOf(job) {
  if (job.state !== "ended") return "";
  const { dead, waiting } = job.became ?? job;
  if (sum(dead)) return "bad";
  return job.unfinished || waiting || job.unknown || sum(job.kept) ? "warn" : "good";
}

/** Stop a job after its current step. */
export async function stopJob(job) {
  try {
    storeJob(await api(`jobs/${encodeURIComponent(job.id)}`, { method: "DELETE" }));
  } catch (problem) {
    notice(problem.message, "bad");
  }
}

// ── the summary ──

const DONE = { replay: "replayed", discard: "discarded", cancel: "cancelled" };
const THINGS = { replay: ["dead letter"], discard: ["dead letter"], cancel: ["delivery", "deliveries"] };
export const doneCount = (job) => job[DONE[job.kind]] ?? 0;

/** Return the result or the progress of a job in one sentence. */
export function summarize(job) {
  const text = job.kind === "retry" ? `${job.client_id}: ${summarizeRetry(job)}` : summarizeRepair(job);
  return job.held_by ? `${text} Waiting: ${job.held_by} holds the messages.` : text;
}

function summarizeRepair(job) {
  const words = [`${counted(doneCount(job), ...THINGS[job.kind])} ${DONE[job.kind]}`];
  if (sum(job.kept)) words.push(`${number(sum(job.kept))} kept: ${formatCounts(job.kept)}`);
  if (sum(job.became?.dead)) words.push(`${number(sum(job.became.dead))} given up again: ${formatCounts(job.became.dead)}`);
  if (job.unfinished) words.push(job.unfinished);
  return `${words.join("; ")}.`;
}

function summarizeRetry(job) {
  if (job.waited === null) return "counting pending deliveries …";
  if (!job.waited) return "no pending deliveries.";
  const words = [`${number(job.delivered)} of ${counted(job.waited, "delivery", "deliveries")} delivered`];
  if (sum(job.failed)) words.push(`${counted(sum(job.failed), "attempt")} failed (${job.text || formatCounts(job.failed)})`);
  if (sum(job.dead)) words.push(`${number(sum(job.dead))} given up (${formatCounts(job.dead)})`);
  if (job.waiting) words.push(`${number(job.waiting)} pending`);
  if (job.unknown) words.push(`${number(job.unknown)} with unknown results (cancelled, or not reported by a worker)`);
  if (job.unfinished) words.push(job.unfinished);
  return `${words.join(", ")}.`;
}

const TITLES = { retry: "Retry", replay: "Replay", discard: "Discard", cancel: "Cancel" };
const PROGRESS = {
  waiting: "waiting", running: "running", watching: "done; waiting for the results", ended: "ended",
};

/** The progress of a job, polled every second. */
export function JobProgress({ id }) {
  const job = state.jobs.get(id);
  if (!job) return null;
  return html`<section class="band account ${toneOf(job)}" aria-label=${TITLES[job.kind]}>
    <p><b>${TITLES[job.kind]}</b>${" "}<span class="dim">${PROGRESS[job.state]}, started ${formatTime(job.began_at)}</span></p>
    <p><${SafeText} text=${summarize(job)} limit=${600} /></p>
    ${job.became && html`<${ReplayResult} became=${job.became} />`}</section>`;
}

function ReplayResult({ became }) {
  const parts = [
    [became.delivered, "delivered", ""],
    [sum(became.failed), "attempts failed", formatCounts(became.failed)],
    [sum(became.put_off), "deferred", formatCounts(became.put_off)],
    [sum(became.dead), "given up again", formatCounts(became.dead)],
    [became.skipped, "skipped", ""],
    [became.waiting, "pending", ""],
    [became.not_followed, "with unknown results: see Dead letters", ""],
  ].filter(([count]) => count);
  return html`<ul class="became">${parts.map(([count, words, why]) => html`<li><b>${number(count)}</b> ${words}
    ${why && html`${" "}<span class="dim">${why}</span>`}</li>`)}
    ${became.unfinished && html`<li class="dim"><${SafeText} text=${became.unfinished} /></li>`}</ul>`;
}

/** The note that a job continues when the tab is closed. */
export const ContinuesNote = ({ ids }) => html`<p class="dim" role="status">${ids.every((id) => state.jobs.get(id)?.state === "ended")
  ? "It has ended." : "It continues if you close this dialog or the tab. The audit log shows its result."}</p>`;
