// Request each client of the front-channel page (docs/front-channel.md), and report the results to notifier and to the
// page's parent. The script is the same on all pages, so that their Content-Security-Policy permits it by hash.
// Variable parts are in the element "plan".
"use strict";
(() => {
  const MAX_KEEPALIVE_FETCHES = 200; // they continue after the user leaves the page; browsers allow 256
  const MESSAGE_GRACE_MILLISECONDS = 50; // a client's message may come after its frame has loaded
  const REACHED_RESULTS = new Set(["confirmed", "answered"]);

  const plan = JSON.parse(document.getElementById("plan").textContent);
  const startedAt = performance.now();
  // `answered` is null until the client's fetch has succeeded or failed.
  const clients = plan.clients.map((client) => ({ ...client, answered: null, loaded: false, confirmed: false }));
  let isFinished = false;

  function resultOf(client) {
    if (client.confirmed) return "confirmed";
    if (client.answered) return "answered";
    if (client.answered === null) return client.loaded ? "loaded" : "silent";
    return client.loaded ? "unclear" : "failed";
  }

  // Report the results, once. `end`: "done", "limit" (the time limit passed) or "left" (the user left the page).
  function finish(end) {
    if (isFinished) return;
    isFinished = true;
    const results = clients.map(resultOf);
    sendReport({ how: end, ms: Math.round(performance.now() - startedAt), clients: results });
    const listed = clients.map(({ id, name }, index) => ({ id, name, result: results[index] }));
    listed.push(...plan.unasked.map((client) => ({ ...client, result: "unasked" })));
    notifyParent(end, listed);
    showMissing(listed.filter((client) => !REACHED_RESULTS.has(client.result)));
    // A removed frame no longer delays the load event of the page and of its parents.
    for (const frame of document.querySelectorAll("iframe")) if (!clients[frame.dataset.n].loaded) frame.remove();
  }

  function sendReport(report) {
    if (plan.report === null) return;
    const request = { method: "POST", keepalive: true, credentials: "omit", body: JSON.stringify(report) };
    fetch(plan.report, request).catch(() => {}); // a lost report only changes metrics
  }

  // Return null if the origin is unknown: a parent may suppress the referrer, and old Firefox has no `ancestorOrigins`.
  function originOfParent() {
    try {
      return parent.location.origin;
    } catch {
      const [ancestor] = location.ancestorOrigins ?? [];
      return ancestor ?? (document.referrer ? new URL(document.referrer).origin : null);
    }
  }

  // The browser delivers only messages to the parent's own origin. If that is unknown, each permitted origin is tried,
  // and the browser logs the undelivered messages in the developer console.
  function notifyParent(end, listed) {
    if (parent === self) return;
    const parentOrigin = originOfParent();
    for (const origin of plan.parents.includes(parentOrigin) ? [parentOrigin] : plan.parents) {
      parent.postMessage({ type: "front-channel-logout", how: end, clients: listed }, origin);
      parent.postMessage("logout-iframes-complete", origin); // expected by Duende IdentityServer 8
    }
  }

  function showMissing(missing) {
    const status = document.getElementById("status");
    if (status === null) return; // the page's settings show no names
    const text = document.createElement("p");
    text.textContent = missing.length
      ? "These applications gave no answer. You may still be signed in there:"
      : "Your applications were told that you have signed out.";
    const list = document.createElement("ul");
    for (const client of missing) list.appendChild(document.createElement("li")).textContent = client.name;
    status.replaceChildren(text, ...(missing.length ? [list] : []));
  }

  // Each client is requested by fetch first, and then by its frame below. A fetch needs no process, continues after the
  // user leaves the page, bypasses the HTTP cache, and fails without a response over valid TLS.
  const fetches = clients.map(async (client, index) => {
    const keepalive = index < MAX_KEEPALIVE_FETCHES;
    const request = { mode: "no-cors", credentials: "include", cache: "no-store", keepalive };
    try {
      await fetch(client.uri, request);
      client.answered = true;
    } catch {
      client.answered = false;
    }
  });

  // A frame's `load` event does not bubble, so the listener captures it.
  document.addEventListener("load", ({ target }) => {
    if (target.localName === "iframe") clients[target.dataset.n].loaded = true;
  }, true);

  addEventListener("message", ({ data, origin, source }) => {
    if (data === null || typeof data !== "object" || data.type !== "logged-out") return;
    const frame = [...document.querySelectorAll("iframe")].find((element) => element.contentWindow === source);
    if (frame === undefined) return;
    const client = clients[frame.dataset.n];
    if (origin === new URL(client.uri).origin) client.confirmed = true;
  });

  // The window's `load` event follows all frames, also frames without a `load` event: a 204, a download, a connection
  // refused in Firefox or Safari. To count the frames' events would wait for these forever.
  const windowLoaded = new Promise((resolve) => addEventListener("load", resolve));
  Promise.all([windowLoaded, ...fetches]).then(() => setTimeout(finish, MESSAGE_GRACE_MILLISECONDS, "done"));
  setTimeout(finish, plan.limit, "limit");
  addEventListener("pagehide", () => finish("left"));
})();
