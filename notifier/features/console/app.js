// The console: connects state, pages and frame, and starts.
import { AuditLog, loadAuditLog } from "./acts_page.js";
import { Client, loadClient, refreshClient } from "./client_page.js";
import { Clients, loadClients } from "./clients_page.js";
import { DeadLetters, loadDeadLetters, refreshLetters } from "./dead_letters_page.js";
import { Doctor, loadDoctor } from "./doctor_page.js";
import { Find, loadFind } from "./find_page.js";
import { Frame, GO, showKeyboard } from "./frame.js";
import { Keys, loadKeys } from "./keys_page.js";
import { Live, loadLive } from "./live_page.js";
import { Overview } from "./overview_page.js";
import { Pauses, loadPauses } from "./pauses_page.js";
import { SafeText, html } from "./text.js";
import { Waiting, loadWaiting, refreshWaiting } from "./waiting_page.js";
import { applyAddress } from "./addresses.js";
import { setRenderer, afterDraw, state, update } from "./state.js";
import { finish } from "./sign_in.js";
import { loadPage } from "./following.js";
import { readTheme, setTheme } from "./theme.js";
import { readToken, handleRefusedToken, renewBeforeExpiry, showSignIn, signIn } from "./session.js";
import { render } from "./preact.mjs";
import { resetTables } from "./tables.js";
import { onTokenRefused } from "./api.js";

/**
 * Pages by their name in the address. `load` requests the data of `view`, `every` so many milliseconds again; `again`
 * reloads a page that is not polled. `nav`: in the side bar. `unbound`: hidden for a token with issuers. `fresh`: drops
 * its data when the query changes.
 */
const PAGES = {
  overview: { title: "Overview", nav: true, view: Overview },
  clients: { title: "Clients", nav: true, view: Clients, load: loadClients, every: 3000 },
  client: { title: "Client", view: Client, load: loadClient, every: 2000, again: refreshClient, fresh: true, heading: clientHeading },
  dead: { title: "Dead letters", nav: true, view: DeadLetters, load: loadDeadLetters, again: refreshLetters },
  waiting: { title: "Pending", nav: true, view: Waiting, load: loadWaiting, again: refreshWaiting },
  pauses: { title: "Pauses", nav: true, view: Pauses, load: loadPauses, again: loadPage },
  find: { title: "Find a logout", nav: true, view: Find, load: loadFind, fresh: true },
  live: { title: "Live", nav: true, view: Live, load: loadLive, every: 1000, fresh: true },
  keys: { title: "Keys and registry", nav: true, view: Keys, load: loadKeys, every: 10_000 },
  doctor: { title: "Doctor", nav: true, view: Doctor, load: loadDoctor, every: 1500, unbound: true },
  acts: { title: "Audit log", nav: true, view: AuditLog, load: loadAuditLog, every: 3000 },
};

function clientHeading({ client_id }) {
  return html`<${SafeText} text=${client_id} limit=${120} middle />`;
}

// ── the address ──

function onAddressChange() {
  const before = applyAddress();
  resetTables();
  loadPage();
  if (before !== state.route.name) {
    afterDraw(() => {
      document.querySelector("h1")?.focus();
      scrollTo(0, 0);
    });
  }
}

// ── the keyboard ──

const GO_TIMEOUT = 1500; // milliseconds
let goPressedAt = -GO_TIMEOUT;

function onKeyDown(event) {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping || !state.me || state.dialog) return;
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("main input[type=search]")?.focus();
  } else if (event.key === "?") showKeyboard();
  else if (event.key === "g") goPressedAt = event.timeStamp;
  else if (event.timeStamp - goPressedAt < GO_TIMEOUT && Object.hasOwn(GO, event.key)) {
    goPressedAt = -GO_TIMEOUT;
    location.hash = `#/${GO[event.key]}`;
  }
}

// ── start ──

async function begin() {
  state.pages = PAGES;
  setRenderer(() => render(html`<${Frame} />`, document.getElementById("app")));
  onTokenRefused(handleRefusedToken);
  setTheme(readTheme());
  addEventListener("hashchange", onAddressChange);
  addEventListener("keydown", onKeyDown);
  setInterval(() => {
    if (state.me && !document.hidden) update(); // texts such as "12 s ago"
    renewBeforeExpiry();
  }, 1000);
  const signInResult = await finish();
  if (signInResult?.place) history.replaceState(null, "", signInResult.place);
  onAddressChange();
  if (signInResult?.error) await showSignIn(signInResult.error);
  else if (signInResult?.token) await signIn(signInResult.token, signInResult.expires_at);
  else await signIn(readToken());
}

begin();
