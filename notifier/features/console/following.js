// Polling: the service on every page, and the data of the open page.
import { Problem, api } from "./api.js";
import { setClock } from "./text.js";
import { STATES } from "./words.js";
import { state, update } from "./state.js";

const OVERVIEW_INTERVAL = 1500; // milliseconds, as all times here
const RETRY_INTERVAL = 2000;
const OVERVIEW_TIMEOUT = 8000; // an unresponsive service must not look live
const MAX_STEPS = 360; // of five seconds: half an hour

const NO_STATES = Object.fromEntries(Object.keys(STATES).map((name) => [name, 0]));

let serviceTimer, pageTimer, abortController, lastRequest = 0;

/** Load the overview of the service, and do it again after OVERVIEW_INTERVAL. A hidden tab does not load. */
export async function pollService() {
  clearTimeout(serviceTimer);
  const token = state.token;
  let wait = OVERVIEW_INTERVAL;
  if (!document.hidden) {
    try {
      const last = Math.max(0, ...state.steps.keys());
      const query = { since: last ? last - 1 : undefined }; // the last known step was incomplete
      const service = await api("overview", { query, signal: AbortSignal.timeout(OVERVIEW_TIMEOUT) });
      if (!state.me || state.token !== token) return;
      applyOverview(service);
    } catch (problem) {
      if (!state.me || state.token !== token) return;
      wait = Math.max(RETRY_INTERVAL, (problem.again ?? 0) * 1000);
      const text = problem instanceof Problem ? problem.message : "The API did not respond in time.";
      update({ lost: { since: state.lost?.since ?? new Date().toISOString(), text } });
    }
  }
  serviceTimer = setTimeout(pollService, wait);
}

function applyOverview(service) {
  setClock(service.at);
  for (const [step, ...counts] of service.timeline.steps) state.steps.set(step, counts);
  for (const step of state.steps.keys()) {
    if (step < service.timeline.now - MAX_STEPS) state.steps.delete(step);
  }
  service.states = { ...NO_STATES, ...service.states };
  update({ service, updatedAt: Date.now(), lost: null });
}

/** Load the data of the open page. Do it again after `every` milliseconds, if the page has it. */
export async function loadPage() {
  clearTimeout(pageTimer);
  abortController?.abort();
  const page = state.pages[state.route.name];
  const request = ++lastRequest;
  if (!page.load || !state.me) return;
  abortController = new AbortController();
  update({ page: { ...state.page, loading: true } });
  try {
    const data = await page.load(state.route.query, abortController.signal, state.page.data);
    if (request !== lastRequest) return;
    update({ page: { data, problem: null, loading: false, at: Date.now() } });
  } catch (problem) {
    if (request !== lastRequest || problem.name === "AbortError") return;
    update({ page: { ...state.page, problem, loading: false } });
  }
  if (page.every) pageTimer = setTimeout(pollPage, page.every);
}

function pollPage() {
  if (document.hidden || state.dialog?.still) pageTimer = setTimeout(pollPage, 1000);
  else loadPage();
}

/** Reload the page now if it is polled. */
export function refresh() {
  if (state.pages[state.route.name].every) loadPage();
}

/** Reload the page after a job has ended, also if it is not polled. */
export function refreshAfterJob() {
  (state.pages[state.route.name].again ?? refresh)();
}

/** Stop polling. */
export function stopPolling() {
  clearTimeout(serviceTimer);
  clearTimeout(pageTimer);
  abortController?.abort();
  lastRequest++;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !state.me) return;
  pollService();
  refresh();
});
