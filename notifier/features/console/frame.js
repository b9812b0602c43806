// The frame of all pages: navigation, the state of the service, the user, and open dialogs.
import { Canary } from "./canary.js";
import { Dialog, Explained, openDialog, newId } from "./dialogs.js";
import { DeadLetter } from "./dead_letter.js";
import { PauseDialog } from "./pauses.js";
import { ResolvedDialog } from "./resolved.js";
import { Repair } from "./repairs.js";
import { SafeText, formatTime, counted, html, number } from "./text.js";
import { SignIn } from "./sign_in_page.js";
import { THEMES, setTheme } from "./theme.js";
import { TROUBLES } from "./words.js";
import { Trouble } from "./parts.js";
import { allAnswered, answeredOf, failingOf, problemsOf, queueTrouble, waitingIn } from "./overview_page.js";
import { hasScope, coversAllIssuers } from "./api.js";
import { signOut } from "./session.js";
import { state } from "./state.js";

const STALE_MILLISECONDS = 5000; // milliseconds without an answer until the page is not "live"
const MAX_EXACT_COUNT = 9999; // above it numbers are in thousands

/** Keyboard shortcuts: `g`, then one of these. */
export const GO = {
  o: "overview", c: "clients", d: "dead", w: "waiting", f: "find", l: "live", k: "keys", p: "pauses", x: "doctor", a: "acts",
};

const DIALOGS = { explain: Explained, keyboard: Keyboard, letter: DeadLetter, repair: Repair, resolved: ResolvedDialog, canary: Canary, pause: PauseDialog };

export function Frame() {
  if (!state.me) return html`<${SignIn} />`;
  const { dialog, route, page: { data, problem } } = state;
  const page = state.pages[route.name];
  setTitle(page);
  return html`<a class="skip" href="#main" onClick=${focusHeading}>Skip to the content</a>
    <div class="frame">
      <header class="side-bar">
        <a class="brand" href="#/"><img src="icon.svg" alt="" width="26" height="26" /><span>notifier</span></a>
        <${Navigation} /><${UserPanel} />
      </header>
      <main id="main">
        <div class="title"><h1 tabindex="-1">${page.heading?.(route.query) ?? page.title}</h1><${LiveStatus} /></div>
        ${problem && !data && html`<${Trouble} problem=${problem} tone="warn" />`}
        <${page.view} data=${data} query=${route.query} />
      </main>
    </div>
    <${Alerts} />
    <${Notices} />
    ${dialog && html`<${DIALOGS[dialog.kind]} key=${dialog.id} dialog=${dialog} />`}`;
}

const Notices = () => html`<div class="notices" role="status" aria-live="polite">${state.notices.map(({ id, tone, text }) => html`
  <p key=${id} class=${tone}><${SafeText} text=${text} limit=${600} /></p>`)}</div>`;

function focusHeading(event) {
  event.preventDefault();
  document.querySelector("h1").focus();
}

/** Set the tab's title, with the number of problems and failing clients. */
function setTitle(page) {
  const { service } = state;
  const count = service ? failingOf(service) + problemsOf(service).count : 0;
  const title = `${count ? `(${count}) ` : ""}${page.title} · notifier`;
  if (document.title !== title) document.title = title;
}

/** Alerts at the bottom of the window, above the page: nothing moves when one appears. */
function Alerts() {
  const { lost, service, page: { data, problem } } = state;
  return html`<div class="alarms">
    ${problem && data && html`<${Trouble} problem=${problem} tone="warn" />`}
    ${lost && html`<p class="band bad" role="alert">No update since ${formatTime(service?.at ?? lost.since)}: ${lost.text}
      ${" "}This page shows the state at that time.</p>`}</div>`;
}

function LiveStatus() {
  const { service, lost, updatedAt } = state;
  const silence = Date.now() - updatedAt;
  if (lost) return html`<span class="pulse bad">no response</span>`;
  if (!service) return html`<span class="pulse">loading …</span>`;
  if (silence > STALE_MILLISECONDS) return html`<span class="pulse bad">no update for ${Math.round(silence / 1000)} s</span>`;
  const trouble = queueTrouble(service);
  const tone = trouble ? "bad" : allAnswered(service) ? "good" : "warn";
  return html`<span class="pulse ${tone}">${trouble ? TROUBLES[trouble.kind] : "live"} · ${answeredOf(service)}</span>`;
}

// ── the side bar ──

function badges() {
  const { service } = state;
  if (!service) return {};
  return {
    overview: problemsOf(service).count,
    clients: failingOf(service),
    dead: service.queues.dead?.ready,
    waiting: waitingIn(service),
  };
}

const isSeen = (page) => coversAllIssuers() || !page.unbound;

function Navigation() {
  const counts = badges();
  const current = state.route.name === "client" ? "clients" : state.route.name;
  const pages = Object.entries(state.pages).filter(([, page]) => page.nav && isSeen(page));
  return html`<nav aria-label="Pages"><ul>${pages.map(([name, { title }]) => html`<li>
    <a href="#/${name}" aria-current=${name === current ? "page" : undefined}>${title}
      ${counts[name] > 0 && html`<${Badge} count=${counts[name]} hot=${name !== "waiting"} />`}</a></li>`)}</ul></nav>`;
}

const Badge = ({ count, hot }) => html`<span class="badge ${hot ? "hot" : ""}">
  ${count > MAX_EXACT_COUNT ? `${Math.floor(count / 1000)}k` : number(count)}</span>`;

function UserPanel() {
  const { me, theme } = state;
  const rights = me.open ? "read only: no tokens_file" : hasScope("repair") ? "read and repair" : "read only";
  return html`<div class="me">
    <p><b><${SafeText} text=${me.name} limit=${40} /></b><br />${rights}
      ${!coversAllIssuers() && html`<br /><span class="dim">${counted(me.issuers.length, "issuer")} only</span>`}</p>
    <p class="row"><label>Theme <select value=${theme} onChange=${(event) => setTheme(event.target.value)}>
      ${THEMES.map((each) => html`<option value=${each}>${each}</option>`)}</select></label></p>
    <p class="row">${!me.open && html`<button type="button" class="quiet" onClick=${() => signOut()}>Sign out</button>`}
      <button type="button" class="quiet" onClick=${showKeyboard}>Keyboard</button></p>
    <p class="dim">version ${me.version}</p></div>`;
}

export const showKeyboard = () => openDialog({ kind: "keyboard", id: newId() });

function Keyboard() {
  return html`<${Dialog} title="Keys of the keyboard">
    <dl class="facts"><dt><kbd>/</kbd></dt><dd>to the search of the page</dd>
      <dt><kbd>g</kbd> then a letter</dt><dd><ul class="keys">${Object.entries(GO).filter(([, name]) => isSeen(state.pages[name])).map(([key, name]) => html`
        <li><kbd>${key}</kbd> ${state.pages[name].title}</li>`)}</ul></dd>
      <dt><kbd>?</kbd></dt><dd>these keys</dd><dt><kbd>Esc</kbd></dt><dd>closes what is open</dd></dl><//>`;
}
