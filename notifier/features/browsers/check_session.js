// The OP iframe of OpenID Connect Session Management 1.0 §3.2. A client's page sends "client_id session_state" and is
// answered "unchanged", "changed" or "error". The answer must not be "changed" while the user may still be signed in.
(() => {
  "use strict";
  const LONGEST = 4096; // characters of a message; session_state has about a hundred
  const { formula, cookie: name } = JSON.parse(document.getElementById("settings").textContent);

  const digest = async (algorithm, text) =>
    new Uint8Array(await crypto.subtle.digest(algorithm, new TextEncoder().encode(text)));
  const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const base64url = (bytes) =>
    btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

  function browserState() {
    const found = document.cookie.split("; ").find((each) => each.startsWith(name + "="));
    const value = found ? found.slice(name.length + 1) : "";
    return value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value;
  }

  // Without a cookie the user is signed out, or the browser hides it from this frame. This distinguishes the two.
  let asked = null;
  function seesCookies() {
    if (!document.requestStorageAccess) return Promise.resolve(true);
    asked ??= document.requestStorageAccess().then(
      () => true, // granted without a prompt within a site, and where third-party cookies are allowed
      () => document.hasStorageAccess(),
    );
    return asked;
  }

  // Whether this client may use the page from that origin. One client per frame bounds the number of requests.
  let registered = null;
  async function mayAsk(client, origin) {
    const query = new URLSearchParams({ client_id: client, origin }).toString();
    registered ??= { query, answer: fetch(location.pathname + "?" + query, { credentials: "omit" }) };
    if (registered.query !== query) return false;
    const answer = await registered.answer.catch(() => null);
    if (answer === null || (!answer.ok && answer.status !== 403)) registered = null; // unavailable or busy: try again
    return answer !== null && answer.ok;
  }

  const salted = (given) => given.slice(given.lastIndexOf(".") + 1);
  async function isOfSpecification(client, origin, state, given) {
    const salt = salted(given);
    return given === hex(await digest("SHA-256", [client, origin, state, salt].join(" "))) + "." + salt;
  }
  async function isOfDuende(client, origin, state, given) {
    const salt = salted(given);
    return given === base64url(await digest("SHA-256", client + origin + state + salt)) + "." + salt;
  }
  async function isOfKeycloak(_client, _origin, state, given) {
    if (state.includes("/")) return given === state.split("/")[2]; // before 26.1: realm/user/session
    const algorithm = state.length === 64 ? "SHA-384" : "SHA-256"; // both in base64url: 64 and 43 characters
    return state === base64url(await digest(algorithm, given));
  }
  const matches = {
    specification: isOfSpecification,
    wso2: isOfSpecification,
    duende: isOfDuende,
    keycloak: isOfKeycloak,
  }[formula];

  let seen = false; // this document has seen the cookie, so that its absence later is a sign-out
  async function verdict(text, origin) {
    const cut = text.lastIndexOf(" ");
    const client = text.slice(0, cut);
    const given = text.slice(cut + 1);
    if (cut < 1 || (!given && formula !== "keycloak")) return "error";
    if (formula === "keycloak" && !(await mayAsk(client, origin))) return "error";
    let state = browserState();
    if (!state && !seen) {
      if (!(await seesCookies())) return "error";
      state = browserState();
    }
    seen ||= state !== "";
    if (!given) return state ? "changed" : "unchanged"; // Keycloak's clients also wait for a sign-in
    return state && (await matches(client, origin, state, given)) ? "unchanged" : "changed";
  }

  if (window.parent === window) return;
  addEventListener("message", async ({ data, origin, source }) => {
    if (source !== window.parent || typeof data !== "string" || data.length > LONGEST) return;
    // crypto.subtle is missing under a page on plain http; an origin "null" cannot be answered.
    const answer = await verdict(data, origin).catch(() => "error");
    if (origin !== "null") source.postMessage(answer, origin);
  });
})();
