// The OP iframe of OpenID Connect Session Management 1.0 §3.2. A client's page sends the message "client_id
// session_state", and receives "unchanged", "changed" or "error". The answer must not be "changed" while the user may
// still be signed in.
(() => {
  "use strict";
  const MAX_MESSAGE_CHARACTERS = 4096; // session_state has about a hundred
  const { formula, cookie: cookieName } = JSON.parse(document.getElementById("settings").textContent);

  const hashOf = async (algorithm, text) =>
    new Uint8Array(await crypto.subtle.digest(algorithm, new TextEncoder().encode(text)));
  const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const toBase64url = (bytes) =>
    btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

  function readBrowserState() {
    const cookie = document.cookie.split("; ").find((pair) => pair.startsWith(cookieName + "="));
    const value = cookie ? cookie.slice(cookieName.length + 1) : "";
    const isQuoted = value.length > 1 && value.startsWith('"') && value.endsWith('"');
    return isQuoted ? value.slice(1, -1) : value;
  }

  // Return whether this frame has access to cookies. Without access, a missing cookie proves no sign-out.
  let cookieAccess = null;
  function hasCookieAccess() {
    if (!document.requestStorageAccess) return Promise.resolve(true);
    cookieAccess ??= document.requestStorageAccess().then(
      () => true, // granted without a prompt within a site, and where third-party cookies are allowed
      () => document.hasStorageAccess(),
    );
    return cookieAccess;
  }

  // Return whether the client may use the page from this origin. A frame serves one client only, which bounds the
  // number of requests.
  let permission = null;
  async function hasPermission(client, origin) {
    const query = new URLSearchParams({ client_id: client, origin }).toString();
    permission ??= { query, response: fetch(location.pathname + "?" + query, { credentials: "omit" }) };
    if (permission.query !== query) return false;
    const response = await permission.response.catch(() => null);
    const isFinal = response !== null && (response.ok || response.status === 403);
    if (!isFinal) permission = null; // request it again for the next message
    return response !== null && response.ok;
  }

  // Each formula returns whether a client's session_state belongs to the browser state.
  const saltOf = (sessionState) => sessionState.slice(sessionState.lastIndexOf(".") + 1);
  async function matchesSpecification(client, origin, browserState, sessionState) {
    const salt = saltOf(sessionState);
    const hash = await hashOf("SHA-256", [client, origin, browserState, salt].join(" "));
    return sessionState === toHex(hash) + "." + salt;
  }
  async function matchesDuende(client, origin, browserState, sessionState) {
    const salt = saltOf(sessionState);
    const hash = await hashOf("SHA-256", client + origin + browserState + salt);
    return sessionState === toBase64url(hash) + "." + salt;
  }
  async function matchesKeycloak(_client, _origin, browserState, sessionState) {
    const isPlain = browserState.includes("/"); // realm/user/session, until Keycloak 26.0
    if (isPlain) return sessionState === browserState.split("/")[2];
    const algorithm = browserState.length === 64 ? "SHA-384" : "SHA-256"; // 64 and 43 characters in base64url
    return browserState === toBase64url(await hashOf(algorithm, sessionState));
  }
  const matches = {
    specification: matchesSpecification,
    wso2: matchesSpecification,
    duende: matchesDuende,
    keycloak: matchesKeycloak,
  }[formula];

  let hadCookie = false; // if the cookie was there before, its absence is a sign-out
  async function answerTo(message, origin) {
    const separator = message.lastIndexOf(" ");
    const client = message.slice(0, separator);
    const sessionState = message.slice(separator + 1);
    if (separator < 1 || (!sessionState && formula !== "keycloak")) return "error";
    if (formula === "keycloak" && !(await hasPermission(client, origin))) return "error";
    let browserState = readBrowserState();
    if (!browserState && !hadCookie) {
      if (!(await hasCookieAccess())) return "error";
      browserState = readBrowserState();
    }
    hadCookie ||= browserState !== "";
    if (!sessionState) return browserState ? "changed" : "unchanged"; // Keycloak's adapter also waits for a sign-in
    const isUnchanged = browserState && (await matches(client, origin, browserState, sessionState));
    return isUnchanged ? "unchanged" : "changed";
  }

  if (window.parent === window) return; // not in a frame
  addEventListener("message", async ({ data, origin, source }) => {
    if (source !== window.parent || typeof data !== "string" || data.length > MAX_MESSAGE_CHARACTERS) return;
    // crypto.subtle is missing under a page on plain http; an origin "null" cannot be answered.
    const answer = await answerTo(data, origin).catch(() => "error");
    if (origin !== "null") source.postMessage(answer, origin);
  });
})();
