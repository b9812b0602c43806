// The script of the front-channel page (docs/front-channel.md). It is the same on every page, so that the page's
// policy can permit it by its hash; variable parts are in the element "plan".
"use strict";
(() => {
  const KEPT_ALIVE = 200; // fetches that continue after the page is left; a browser allows 256 at a time
  const GRACE = 50; // milliseconds: a client's message may come after its frame has loaded
  const TOLD = new Set(["confirmed", "answered"]);

  const plan = JSON.parse(document.getElementById("plan").textContent);
  const began = performance.now();
  const clients = plan.clients.map((asked) => ({ ...asked, answered: null, loaded: false, confirmed: false }));
  let over = false;

  function resultOf(client) {
    if (client.confirmed) return "confirmed";
    if (client.answered) return "answered";
    if (client.answered === null) return client.loaded ? "loaded" : "silent";
    return client.loaded ? "unclear" : "failed";
  }

  function finish(how) {
    if (over) return;
    over = true;
    const results = clients.map(resultOf);
    report({ how, ms: Math.round(performance.now() - began), clients: results });
    const told = clients.map(({ id, name }, nth) => ({ id, name, result: results[nth] }));
    told.push(...plan.unasked.map((client) => ({ ...client, result: "unasked" })));
    tellParent(how, told);
    show(told.filter((client) => !TOLD.has(client.result)));
    for (const frame of document.querySelectorAll("iframe")) {
      if (!clients[frame.dataset.n].loaded) frame.remove(); // completes the load of the page and of all pages above it
    }
  }

  function report(seen) {
    if (plan.report === null) return;
    const request = { method: "POST", keepalive: true, credentials: "omit", body: JSON.stringify(seen) };
    fetch(plan.report, request).catch(() => {}); // only for metrics
  }

  // null: unknown. A parent may suppress the referrer, and Firefox had no `ancestorOrigins`.
  function originOfParent() {
    try {
      return parent.location.origin;
    } catch {
      const [above] = location.ancestorOrigins ?? [];
      return above ?? (document.referrer ? new URL(document.referrer).origin : null);
    }
  }

  function tellParent(how, told) {
    if (parent === self) return;
    const above = originOfParent();
    for (const origin of plan.parents.includes(above) ? [above] : plan.parents) {
      // The browser delivers only messages addressed to the parent's own origin, and logs the others in the console.
      parent.postMessage({ type: "front-channel-logout", how, clients: told }, origin);
      parent.postMessage("logout-iframes-complete", origin); // expected by Duende IdentityServer 8
    }
  }

  function show(missing) {
    const place = document.getElementById("status");
    if (place === null) return;
    const text = document.createElement("p");
    text.textContent = missing.length
      ? "These applications gave no answer. You may still be signed in there:"
      : "Your applications were told that you have signed out.";
    const list = document.createElement("ul");
    for (const client of missing) list.appendChild(document.createElement("li")).textContent = client.name;
    place.replaceChildren(text, ...(missing.length ? [list] : []));
  }

  // Every client is requested by fetch, before its frame is read below. A fetch needs no process, continues after the
  // page is left, bypasses the HTTP cache, and is rejected without a response over valid TLS.
  const fetches = clients.map(async (client, nth) => {
    const request = { mode: "no-cors", credentials: "include", cache: "no-store", keepalive: nth < KEPT_ALIVE };
    try {
      await fetch(client.uri, request);
      client.answered = true;
    } catch {
      client.answered = false;
    }
  });

  // A frame's `load` does not bubble, so it is captured.
  document.addEventListener("load", ({ target }) => {
    if (target.localName === "iframe") clients[target.dataset.n].loaded = true;
  }, true);

  addEventListener("message", ({ data, origin, source }) => {
    if (data === null || typeof data !== "object" || data.type !== "logged-out") return;
    const frame = [...document.querySelectorAll("iframe")].find((each) => each.contentWindow === source);
    const client = frame && clients[frame.dataset.n];
    if (client && origin === new URL(client.uri).origin) client.confirmed = true;
  });

  // The window's own `load` comes after all frames, also after frames without one: a 204, a download, a connection
  // that Firefox or Safari was refused. Counting the frames' `load` events would wait for these forever.
  const loaded = new Promise((done) => addEventListener("load", done));
  Promise.all([loaded, ...fetches]).then(() => setTimeout(finish, GRACE, "done"));
  setTimeout(finish, plan.limit, "limit");
  addEventListener("pagehide", () => finish("left"));
})();
