// Polling: the service on every page, and the data of the open page.
import { Problem, api } from "./api.js";
import { setClock } from "./text.js";
import { STATES } from "./words.js";
import { state, update } from "./state.js";

const SERVICE_EVERY = 1500; // milliseconds
const AFTER_A_PROBLEM = 2000;
const SERVICE_WITHIN = 8000; // an unresponsive service must not look live
const KEPT_STEPS = 360; // of five seconds: half an hour

const NO_STATES = Object.fromEntries(Object.keys(STATES).map((name) => [name, 0]));

let serviceTimer, pageTimer, loading, serial = 0;

/** Poll the state of the service, except while the tab is hidden. */
export async function followService() {
  clearTimeout(serviceTimer);
  const token = state.token;
  let wait = SERVICE_EVERY;
  if (!document.hidden) {
    try {
      const last = Math.max(0, ...state.steps.keys());
      const query = { since: last ? last - 1 : undefined }; // the last step was incomplete
      const service = await api("overview", { query, signal: AbortSignal.timeout(SERVICE_WITHIN) });
      if (!state.me || state.token !== token) return;
      take(service);
    } catch (problem) {
      if (!state.me || state.token !== token) return;
      wait = Math.max(AFTER_A_PROBLEM, (problem.again ?? 0) * 1000);
      const text = problem instanceof Problem ? problem.message : "The API did not respond in time.";
      update({ lost: { since: state.lost?.since ?? new Date().toISOString(), text } });
    }
  }
  serviceTimer = setTimeout(followService, wait);
}

function take(service) {
  setClock(service.at);
  for (const [step, ...counts] of service.timeline.steps) state.steps.set(step, counts);
  for (const step of state.steps.keys()) {
    if (step < service.timeline.now - KEPT_STEPS) state.steps.delete(step);
  }
  service.states = { ...NO_STATES, ...service.states };
  update({ service, heardAt: Date.now(), lost: null });
}

/** Load the page's data, and poll them if the page has `every`. */
export async function follow() {
  clearTimeout(pageTimer);
  loading?.abort();
  const page = state.pages[state.route.name];
  const mine = ++serial;
  if (!page.load || !state.me) return;
  loading = new AbortController();
  update({ page: { ...state.page, loading: true } });
  try {
    const data = await page.load(state.route.query, loading.signal, state.page.data);
    if (mine !== serial) return;
    update({ page: { data, problem: null, loading: false, at: Date.now() } });
  } catch (problem) {
    if (mine !== serial || problem.name === "AbortError") return;
    update({ page: { ...state.page, problem, loading: false } });
  }
  if (page.every) pageTimer = setTimeout(followAgain, page.every);
}

function followAgain() {
  if (document.hidden || state.dialog?.still) pageTimer = setTimeout(followAgain, 1000);
  else follow();
}

/** Reload the page now if it is polled. */
export function refresh() {
  if (state.pages[state.route.name].every) follow();
}

/** Reload the page after a job has ended, also if it is not polled. */
export function afterJob() {
  (state.pages[state.route.name].again ?? refresh)();
}

/** Stop polling. */
export function stopFollowing() {
  clearTimeout(serviceTimer);
  clearTimeout(pageTimer);
  loading?.abort();
  serial++;
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !state.me) return;
  followService();
  refresh();
});
