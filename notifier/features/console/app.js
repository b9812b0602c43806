// The console: one state, one render, one way to the API. Pages are in pages.js.
import { render } from "./preact.mjs";
import { html, Ago, Dialog, Markdown, Said, clock, counted, number, setClock } from "./parts.js";
import { PAGES, dialogs } from "./pages.js";

const KEY = "notifier.token", THEME = "notifier.theme", SERVICE_EVERY = 1500, ANSWER_WITHIN = 8000, STALE = 5000, KEPT_STEPS = 360;

export const state = {
  token: sessionStorage.getItem(KEY), me: null, signIn: null, route: { name: "overview", query: {} },
  service: null, steps: new Map(), lost: null, page: { data: null, problem: null, loading: false },
  dialog: null, retries: new Map(), notices: [], theme: localStorage.getItem(THEME) ?? "auto", hover: false, plotAt: null,
};

let asked = false;
/** Change the state; the page follows in the next frame. */
export function update(patch) {
  Object.assign(state, patch);
  if (asked) return;
  asked = true;
  queueMicrotask(() => { asked = false; render(html`<${Shell} />`, document.getElementById("app")); });
}

// ── the API ──

export class Problem extends Error {
  constructor(status, title, mistakes = [], again = 0) { super(title); Object.assign(this, { status, mistakes, again }); }
}

/** Ask the API: same origin, no cookies, no cache, no redirect. `body` makes a POST. */
export async function api(path, { query, body, method, signal, token = state.token } = {}) {
  const search = query ? new URLSearchParams(Object.entries(query).flatMap(([name, value]) =>
    value === undefined || value === null || value === "" || value === false ? [] : Array.isArray(value) ? value.map((each) => [name, each]) : [[name, value]])) : "";
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(`/v1/${path}${`${search}` && `?${search}`}`, {
      method: method ?? (body ? "POST" : "GET"), headers, body: body && JSON.stringify(body), signal,
      credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer", mode: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, error.name === "TimeoutError" ? "The API takes too long to answer." : "The API does not answer.");
  }
  const document = await answer.json().catch(() => null);
  if (answer.ok && document) return document;
  if (answer.status === 401 && state.me && token === state.token) signOut("The token is not accepted any more.");
  throw new Problem(answer.status, document?.title ?? `The API answered ${answer.status}.`, document?.mistakes ?? [], Number(answer.headers.get("Retry-After")));
}

export const may = (scope) => Boolean(state.me?.scopes.includes(scope));
export const unbound = () => state.me?.issuers === null;
export const issuerCount = () => state.me?.issuers_known.length ?? 1;

// ── signing in ──

export async function signIn(token) {
  update({ signIn: { busy: true } });
  try {
    const me = await api("whoami", { token });
    if (token) sessionStorage.setItem(KEY, token);
    update({ token, me, signIn: null });
    followService();
    follow();
  } catch (problem) {
    sessionStorage.removeItem(KEY);
    const words = problem.status === 401 ? "The API knows no such token." : problem.status === 403 ? "This token may not look: it lacks the scope read." : problem.message;
    update({ token: null, me: null, signIn: { problem: token ? words : problem.status && problem.status !== 401 ? problem.message : "" } });
  }
}

export function signOut(why = "") {
  sessionStorage.removeItem(KEY);
  clearTimeout(serviceTimer); clearTimeout(pageTimer); loading?.abort();
  update({ token: null, me: null, service: null, steps: new Map(), page: { data: null, problem: null }, dialog: null, retries: new Map(), notices: [], signIn: { problem: why } });
}

// ── what is followed ──

let serviceTimer, pageTimer, loading, serial = 0;

/** The state of the service, on every page. It stops while the tab is hidden. */
async function followService() {
  clearTimeout(serviceTimer);
  const who = state.token;
  let wait = SERVICE_EVERY;
  if (!document.hidden) try {
    const last = Math.max(0, ...state.steps.keys());
    const service = await api("overview", { query: { since: last ? last - 1 : undefined }, signal: AbortSignal.timeout(ANSWER_WITHIN) });
    if (state.token !== who || !state.me) return;
    setClock(service.at);
    for (const [step, ...counts] of service.timeline.steps) state.steps.set(step, counts);
    for (const step of state.steps.keys()) if (step < service.timeline.now - KEPT_STEPS) state.steps.delete(step);
    update({ service, heard: Date.now(), lost: null });
    const failing = service.states.rests + service.states.tried + service.states.fails;
    document.title = `${failing || service.troubles.length ? `(${failing + service.troubles.length}) ` : ""}${PAGES[state.route.name].title} · notifier`;
  } catch (problem) {
    if (!state.me) return;
    wait = Math.max(2000, problem.again * 1000);
    update({ lost: { since: state.lost?.since ?? new Date().toISOString(), text: problem.message } });
  }
  serviceTimer = setTimeout(followService, wait);
}

/** Load the page's own data, and again while it is looked at, if the page wants that. */
export async function follow() {
  clearTimeout(pageTimer);
  loading?.abort();
  const page = PAGES[state.route.name], mine = ++serial;
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
  if (page.every) pageTimer = setTimeout(() => (document.hidden || state.dialog?.still ? (pageTimer = setTimeout(follow, 1000)) : follow()), page.every);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden && state.me) { followService(); if (PAGES[state.route.name].every) follow(); } });
setInterval(() => { if (state.me && !document.hidden) update({}); }, 1000); // what is told as "12 s ago"

// ── where we are ──

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const name = Object.hasOwn(PAGES, path) ? path : "overview";
  const before = state.route;
  state.route = { name, query: Object.fromEntries(new URLSearchParams(query)) };
  const same = before.name === name;
  update({ page: { data: same && !PAGES[name].fresh ? state.page.data : null, problem: null, loading: true }, dialog: null, hover: false, plotAt: null });
  document.title = `${PAGES[name].title} · notifier`;
  follow();
  if (!same) queueMicrotask(() => { document.querySelector("h1")?.focus(); scrollTo(0, 0); });
}
/** Change the query of this page; what is empty goes. */
export function ask(query) {
  const whole = Object.entries({ ...state.route.query, ...query }).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  location.hash = `#/${state.route.name}${whole.length ? `?${new URLSearchParams(whole)}` : ""}`;
}
addEventListener("hashchange", route);

// ── what people do ──

export function notice(text, tone = "good") {
  const one = { text, tone, id: Math.random() };
  update({ notices: [...state.notices.slice(-3), one] });
  setTimeout(() => update({ notices: state.notices.filter((each) => each !== one) }), tone === "bad" ? 15000 : 8000);
}

export async function explain(name) {
  update({ dialog: { kind: "explain", name, text: null } });
  try {
    const section = await api(`explain/${encodeURIComponent(name)}`);
    if (state.dialog?.name === name) update({ dialog: { kind: "explain", name, ...section } });
  } catch (problem) { update({ dialog: { kind: "explain", name, text: problem.status === 404 ? "The runbook has no section of this name." : problem.message } }); }
}

/** Have all workers try a client now. Every page shows how it went. */
export async function retry(client, force = false) {
  const key = `${client.iss} ${client.client_id}`;
  const under = state.retries.get(key);
  if (under?.busy && Date.now() - under.since < 10000) return;
  const set = (value) => update({ retries: new Map(state.retries).set(key, value) });
  set({ busy: true, since: Date.now() });
  try {
    const result = await api("retry", { body: { client_id: client.client_id, iss: client.iss, force } });
    set({ result, at: Date.now() });
    const failed = Object.values(result.failed).reduce((sum, count) => sum + count, 0);
    if (!result.waited) notice(`Nothing waited for ${client.client_id}.`);
    else notice(`${client.client_id}: ${number(result.delivered)} of ${counted(result.waited, "delivery", "deliveries")} delivered${failed ? `, ${counted(failed, "attempt")} failed: ${result.text || Object.keys(result.failed).join(", ")}` : ""}${result.waiting ? `; ${number(result.waiting)} still wait` : ""}.`, result.waiting ? "warn" : "good");
  } catch (problem) {
    set({ problem: problem.message });
    notice(`${client.client_id} was not tried: ${problem.message}`, "bad");
  }
  if (PAGES[state.route.name].every) follow();
}

export function setTheme(theme) {
  if (theme === "auto") { localStorage.removeItem(THEME); document.documentElement.removeAttribute("data-theme"); }
  else { localStorage.setItem(THEME, theme); document.documentElement.dataset.theme = theme; }
  update({ theme });
}

const GO = { o: "overview", c: "clients", d: "dead", w: "waiting", f: "find", l: "live", k: "keys" };
let going = 0;
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !state.me || state.dialog || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) return;
  if (event.key === "/") { event.preventDefault(); document.querySelector("main input[type=search]")?.focus(); }
  else if (event.key === "?") update({ dialog: { kind: "keys" } });
  else if (event.key === "g") going = Date.now();
  else if (Date.now() - going < 1500 && GO[event.key]) { going = 0; location.hash = `#/${GO[event.key]}`; }
});

// ── the frame of all pages ──

function Shell() {
  if (!state.me) return html`<${SignIn} />`;
  const { service, route: { name }, lost } = state;
  const failing = service && service.states.rests + service.states.tried + service.states.fails;
  const badges = { overview: service?.troubles.length, clients: failing, dead: service?.queues.dead?.ready, waiting: service && (service.queues.parked?.ready ?? 0) + service.queues.delayed.ready };
  const page = PAGES[name], stale = service && Date.now() - state.heard > STALE;
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector("h1")?.focus(); }}>To the page</a>
  <div class="frame">
    <header class="side-bar">
      <a class="brand" href="#/"><img src="icon.svg" alt="" width="26" height="26" /><span>notifier</span></a>
      <nav aria-label="Pages"><ul>${Object.entries(PAGES).filter(([, each]) => each.nav).map(([key, each]) => html`<li>
        <a href="#/${key}" aria-current=${key === name || (name === "client" && key === "clients") ? "page" : undefined}>${each.title}
          ${badges[key] > 0 && html`<span class="badge ${key === "waiting" ? "" : "hot"}" aria-label="${badges[key]}">${badges[key] > 9999 ? `${Math.floor(badges[key] / 1000)}k` : number(badges[key])}</span>`}</a></li>`)}</ul></nav>
      <div class="me">
        <p><b><${Said} text=${state.me.name} most=${40} /></b><br />${state.me.open ? "may look: no tokens_file" : may("repair") ? "may look and repair" : "may only look"}${!unbound() && html`<br /><span class="dim">${counted(state.me.issuers.length, "issuer")} only</span>`}</p>
        <p class="row"><label>Theme <select value=${state.theme} onChange=${(event) => setTheme(event.target.value)}>
          ${["auto", "light", "dark"].map((each) => html`<option value=${each}>${each}</option>`)}</select></label></p>
        <p class="row">${!state.me.open && html`<button type="button" class="quiet" onClick=${() => signOut()}>Sign out</button>`}
          <button type="button" class="quiet" onClick=${() => update({ dialog: { kind: "keys" } })} title="Keys of the keyboard">?</button></p>
        <p class="dim">version ${state.me.version}</p>
      </div>
    </header>
    <main id="main">
      ${lost && html`<p class="band bad" role="alert">No news since ${clock(service?.at ?? lost.since)}: ${lost.text} What you see is of then.</p>`}
      <div class="title"><h1 tabindex="-1">${page.heading?.(state.route.query) ?? page.title}</h1>
        <span class="pulse ${lost || stale ? "bad" : service ? "good" : ""}">${lost ? "no answer" : stale ? `no news for ${Math.round((Date.now() - state.heard) / 1000)} s` : service ? html`live · ${service.workers.answered} of ${counted(Math.max(service.workers.seen, service.workers.answered), "worker")}` : "asking …"}</span></div>
      ${state.page.problem && html`<p class="band warn" role="alert">${state.page.problem.message} ${state.page.problem.mistakes.map((each) => html`<br /><code>${each.path}</code> ${each.text}`)}</p>`}
      <${page.view} state=${state} data=${state.page.data} query=${state.route.query} />
    </main>
  </div>
  <div class="notices" role="status" aria-live="polite">${state.notices.map((each) => html`<p key=${each.id} class=${each.tone}><${Said} text=${each.text} most=${500} /></p>`)}</div>
  ${state.dialog && html`<${Modal} />`}`;
}

const close = () => update({ dialog: null });
function Modal() {
  const { dialog } = state;
  if (dialog.kind === "explain") return html`<${Dialog} key="explain" side title=${dialog.name} onClose=${close}>
    ${dialog.group && html`<p class="dim">${dialog.group}</p>`}${dialog.text == null ? html`<p>…</p>` : html`<${Markdown} text=${dialog.text} />`}<//>`;
  if (dialog.kind === "keys") return html`<${Dialog} key="keys" title="Keys of the keyboard" onClose=${close}>
    <dl class="facts"><dt><kbd>/</kbd></dt><dd>to the search of the page</dd><dt><kbd>g</kbd> then a letter</dt><dd>${Object.entries(GO).map(([key, name]) => html`<kbd>${key}</kbd> ${PAGES[name].title.toLowerCase()} `)}</dd><dt><kbd>Esc</kbd></dt><dd>closes what is open</dd></dl><//>`;
  return html`<${dialogs[dialog.kind]} key=${dialog.kind} dialog=${dialog} close=${close} />`;
}

function SignIn() {
  const { signIn: attempt } = state;
  if (!attempt) return html`<main class="sign-in"><p class="dim">…</p></main>`;
  const submit = (event) => { event.preventDefault(); const token = new FormData(event.target).get("token").trim(); if (token) signIn(token); };
  return html`<main class="sign-in"><form onSubmit=${submit} autocomplete="off">
    <h1><img src="icon.svg" alt="" width="36" height="36" /> notifier</h1>
    <label for="token">Token of the API</label>
    <input id="token" name="token" type="password" required spellcheck="false" autocomplete="off" aria-describedby="about" autofocus />
    ${attempt.problem && html`<p class="band bad" role="alert">${attempt.problem}</p>`}
    <button class="main" disabled=${attempt.busy}>${attempt.busy ? "Asking …" : "Sign in"}</button>
    <p id="about" class="dim">It needs the scope <code>read</code>; with <code>repair</code> you may also retry, replay and discard. It stays in this tab and is gone when you close it.</p>
  </form></main>`;
}

setTheme(state.theme);
state.route = (() => { route(); return state.route; })();
signIn(state.token);
