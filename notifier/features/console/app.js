// The console: connects state, pages and frame, and starts.
import { Acts, loadActs } from "./acts_page.js";
import { Client, loadClient } from "./client_page.js";
import { Clients, loadClients } from "./clients_page.js";
import { DeadLetters, loadDeadLetters, refreshLetters } from "./dead_letters_page.js";
import { Doctor, loadDoctor } from "./doctor_page.js";
import { Find, loadFind } from "./find_page.js";
import { Frame, GO, showKeyboard } from "./frame.js";
import { Keys, loadKeys } from "./keys_page.js";
import { Live, loadLive } from "./live_page.js";
import { Overview } from "./overview_page.js";
import { Said, html } from "./text.js";
import { Waiting, loadWaiting, refreshWaiting } from "./waiting_page.js";
import { arrive } from "./places.js";
import { drawWith, onceDrawn, state, update } from "./state.js";
import { finish } from "./sign_in.js";
import { follow } from "./following.js";
import { keptTheme, setTheme } from "./theme.js";
import { keptToken, refused, renewInTime, showSignIn, signIn } from "./session.js";
import { render } from "./preact.mjs";
import { unsettle } from "./tables.js";
import { whenRefused } from "./api.js";

/**
 * Pages by their name in the address. `load` requests the data of `view`, `every` so many milliseconds again; `again`
 * reloads a page that is not polled. `nav`: in the side bar. `unbound`: hidden for a token with issuers. `fresh`: drops
 * its data when the query changes.
 */
const PAGES = {
  overview: { title: "Overview", nav: true, view: Overview },
  clients: { title: "Clients", nav: true, view: Clients, load: loadClients, every: 3000 },
  client: { title: "Client", view: Client, load: loadClient, every: 2000, fresh: true, heading: clientHeading },
  dead: { title: "Dead letters", nav: true, view: DeadLetters, load: loadDeadLetters, again: refreshLetters },
  waiting: { title: "Pending", nav: true, view: Waiting, load: loadWaiting, again: refreshWaiting },
  find: { title: "Find a logout", nav: true, view: Find, load: loadFind, fresh: true },
  live: { title: "Live", nav: true, view: Live, load: loadLive, every: 1000, fresh: true },
  keys: { title: "Keys and registry", nav: true, view: Keys, load: loadKeys, every: 10_000 },
  doctor: { title: "Doctor", nav: true, view: Doctor, load: loadDoctor, every: 1500, unbound: true },
  acts: { title: "Audit log", nav: true, view: Acts, load: loadActs, every: 3000 },
};

function clientHeading({ client_id }) {
  return html`<${Said} text=${client_id} most=${120} />`;
}

// ── the address ──

function go() {
  const before = arrive();
  unsettle();
  follow();
  if (before !== state.route.name) {
    onceDrawn(() => {
      document.querySelector("h1")?.focus();
      scrollTo(0, 0);
    });
  }
}

// ── the keyboard ──

const GO_WITHIN = 1500; // milliseconds
let going = -GO_WITHIN;

function pressed(event) {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping || !state.me || state.dialog) return;
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("main input[type=search]")?.focus();
  } else if (event.key === "?") showKeyboard();
  else if (event.key === "g") going = event.timeStamp;
  else if (event.timeStamp - going < GO_WITHIN && Object.hasOwn(GO, event.key)) {
    going = -GO_WITHIN;
    location.hash = `#/${GO[event.key]}`;
  }
}

// ── start ──

async function begin() {
  state.pages = PAGES;
  drawWith(() => render(html`<${Frame} />`, document.getElementById("app")));
  whenRefused(refused);
  setTheme(keptTheme());
  addEventListener("hashchange", go);
  addEventListener("keydown", pressed);
  setInterval(() => {
    if (state.me && !document.hidden) update(); // texts such as "12 s ago"
    renewInTime();
  }, 1000);
  const signInResult = await finish();
  if (signInResult?.place) history.replaceState(null, "", signInResult.place);
  go();
  if (signInResult?.error) await showSignIn(signInResult.error);
  else if (signInResult?.token) await signIn(signInResult.token, signInResult.expires_at);
  else await signIn(keptToken());
}

begin();
