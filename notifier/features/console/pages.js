// The pages. Each has a title, what it loads, how often, and a view. What people may do is beside what it concerns.
import { Ago, Answer, Chip, Clock, Dialog, KINDS, MILD, Markdown, Pages, Plot, Said, Table, TROUBLES, Until, Who, clientLink, clock, counted, host, html, inWords, now, number } from "./parts.js";
import { api, ask, explain, follow, issuerCount, may, notice, retry, state, unbound, update } from "./app.js";

const ROWS = 50;
const hash = (page, query) => `#/${page}?${new URLSearchParams(Object.entries(query).filter(([, value]) => value))}`;
const sum = (counts) => Object.values(counts ?? {}).reduce((all, count) => all + count, 0);

// ── pieces that several pages have ──

function Retry({ client, label = "Retry now" }) {
  if (!may("repair")) return null;
  const last = state.retries.get(`${client.iss} ${client.client_id}`), busy = last?.busy && Date.now() - last.since < 10000;
  return html`<button type="button" class="do" aria-disabled=${busy ? "true" : undefined} onClick=${() => retry(client)} title="All workers try this client now; what waits for it follows if it answers">
    ${busy ? `Trying … ${inWords((Date.now() - last.since) / 1000)}` : label}</button>`;
}

const Since = ({ client }) => client.state === "put_off" ? html`<${Ago} at=${client.deferred_at} suffix="" />`
  : html`<${Ago} at=${client.failing_since ?? client.last_failure} suffix="" />`;

/** Why something is held back or fails, as operators say it. */
function Why({ client }) {
  if (client.state === "put_off" && client.waits_for) return html`<span class="answer"><button type="button" class="word" onClick=${() => explain(client.waits_for)}>${client.waits_for}</button>
    ${client.waits_for === "paused" ? "the registry pauses it" : client.waits_for === "unknown" ? "nobody registered this client" : client.text ? html`<${Said} text=${client.text} most=${120} className="quote" />` : ""}</span>`;
  return html`<${Answer} row=${client.state === "well" ? { ...client, reason: client.last_failure && client.last_failure > (client.last_success ?? "") ? client.reason : "" } : client} explain=${explain} />`;
}

function Filter({ name, label, options, value, placeholder, type = "search" }) {
  if (options) return html`<label>${label} <select value=${value ?? ""} onChange=${(event) => ask({ [name]: event.target.value, skip: "" })}>
    ${options.map(([key, word]) => html`<option value=${key}>${word}</option>`)}</select></label>`;
  let timer;
  return html`<label>${label} <input type=${type} value=${value ?? ""} placeholder=${placeholder ?? ""} spellcheck="false" autocomplete="off" maxlength="200"
    onInput=${(event) => { clearTimeout(timer); const { value: text } = event.target; timer = setTimeout(() => ask({ [name]: text.trim(), skip: "" }), 250); }} /></label>`;
}
const issuerFilter = (query) => issuerCount() > 1 && html`<${Filter} name="iss" label="Issuer" value=${query.iss} options=${[["", "all"], ...state.me.issuers_known.map((iss) => [iss, host(iss)])]} />`;

const clientColumns = (issuers) => [
  { head: "Client", wide: true, cell: (c) => html`<${Who} client=${c} issuers=${issuers} />${c.name && html`<span class="dim name"><${Said} text=${c.name} most=${60} /></span>`}` },
  { head: "State", cell: (c) => html`<${Chip} state=${c.state === "well" && !c.tried && c.tried !== undefined ? "untried" : c.state} />` },
  { head: "Since", cell: (c) => (c.state === "well" ? html`<span class="dim">–</span>` : html`<${Since} client=${c} />`) },
  { head: "Last answer", say: true, cell: (c) => html`<${Why} client=${c} />` },
  { head: "Waits", num: true, cell: (c) => (c.waits ? number(c.waits) : html`<span class="dim">0</span>`) },
  { head: "Next try", cell: (c) => (c.waits || c.circuit !== "closed" ? html`<${Until} at=${c.next_attempt} />` : html`<span class="dim">–</span>`) },
];

/** Rows keep their places while the pointer is among them: nothing slips under a click. */
let places = new Map();
function settled(rows, keyOf) {
  const fresh = rows.map((row, nth) => [state.hover && places.has(keyOf(row)) ? places.get(keyOf(row)) : state.hover ? 1e6 + nth : nth, row]);
  const sorted = fresh.sort((one, other) => one[0] - other[0]).map(([, row]) => row);
  places = new Map(sorted.map((row, nth) => [keyOf(row), nth]));
  return sorted;
}
const keyOf = (client) => `${client.iss} ${client.client_id}`;
const held = { onPointerEnter: () => update({ hover: true }), onPointerLeave: () => update({ hover: false }), onFocusin: () => update({ hover: true }), onFocusout: () => update({ hover: false }) };

// ── overview ──

function sentence(service) {
  const { states, troubles, queues, workers, rates } = service;
  const down = states.rests + states.tried, waits = (queues.parked?.ready ?? 0) + queues.delayed.ready, dead = queues.dead?.ready ?? 0;
  if (!workers.answered) return ["bad", "No worker answers.", workers.seen ? `${counted(workers.seen, "worker")} consume the queue and do not answer.` : "Nothing is delivered until one is started: notifier run."];
  if (!workers.seen) return ["bad", "Nothing is delivered: no worker consumes the queue.", `${counted(workers.answered, "worker answers", "workers answer")}, and ${workers.answered === 1 ? "takes" : "take"} no event yet${workers.each.some((each) => each.registry.some((source) => !source.up)) ? ", since a registry source was never read" : ""}. ${waits ? `${number(waits + queues.events.ready)} wait.` : ""}`];
  const severe = troubles.filter((each) => !MILD.has(each.kind));
  const tail = `${number(rates.delivered < 10 ? Math.round(rates.delivered * 10) / 10 : Math.round(rates.delivered))} logouts a second are delivered${waits ? `; ${number(waits)} wait and are tried by themselves` : ""}${dead ? `; ${number(dead)} were given up` : ""}.`;
  if (severe.some((each) => each.kind === "queue" || each.kind === "publishing_blocked")) return ["bad", "The queue is in trouble.", tail];
  const words = [down && `${counted(down, "client")} ${down === 1 ? "is" : "are"} down`, states.fails && `${counted(states.fails, "client")} ${states.fails === 1 ? "fails" : "fail"}`,
    states.put_off && `${counted(states.put_off, "client")} ${states.put_off === 1 ? "is" : "are"} held back`, severe.length && `${counted(severe.length, "trouble")} of our own`].filter(Boolean);
  if (words.length) return [down || severe.length ? "bad" : "warn", `${words.join(", ")}.`, tail];
  return ["good", "All is well.", tail];
}

function bars(service, slots) {
  const { step, now: last, series } = service.timeline;
  const [good, bad, dead] = ["delivered", "failed", "dead"].map((name) => series.indexOf(name));
  return Array.from({ length: slots }, (_, nth) => {
    const at = last - slots + 1 + nth, counts = state.steps.get(at);
    return [at * step * 1000, counts?.[good] ?? 0, counts?.[bad] ?? 0, counts?.[dead] ?? 0];
  });
}

function Overview() {
  const { service } = state;
  if (!service) return html`<p class="dim">Asking the workers …</p>`;
  const [tone, head, tail] = sentence(service), issuers = issuerCount();
  const { queues, states } = service, failing = states.rests + states.tried + states.fails + states.put_off;
  const unknown = (queues.parked?.ready ?? 0) + queues.delayed.ready - service.waits_known;
  const others = Object.entries(queues).filter(([name]) => !["delayed", "parked", "dead"].includes(name));
  const queueList = html`<section><h2>Queues</h2><dl class="queues">
    ${others.map(([name, each]) => html`<div><dt>${name}</dt><dd>${number(each.ready)}${each.held ? html` <span class="dim">+ ${number(each.held)} in hand</span>` : ""}</dd><dd class="dim">${each.oldest && each.ready ? html`oldest <${Ago} at=${each.oldest} suffix="" />` : ""}</dd></div>`)}
    <div><dt>delayed</dt><dd>${number(queues.delayed.ready)}</dd><dd class="dim">for their next try</dd></div>
    ${queues.parked && html`<div><dt>parked</dt><dd>${number(queues.parked.ready)}</dd><dd class="dim">until their client is well</dd></div>`}
    ${queues.dead && html`<div class=${queues.dead.ready ? "bad" : ""}><dt><a href="#/dead">dead letters</a></dt><dd>${number(queues.dead.ready)}</dd><dd class="dim">${queues.dead.oldest && queues.dead.ready ? html`oldest <${Ago} at=${queues.dead.oldest} suffix="" />` : ""}</dd></div>`}</dl></section>`;
  const any = service.troubles.length > 0;
  return html`<section class="band big head ${tone}" aria-live="polite"><b>${head}</b> <span>${tail}</span></section>
  <div class="over">${any ? html`<section><h2>Troubles of our own</h2><ul class="troubles">${service.troubles.map((one) => html`<li key=${`${one.kind} ${one.iss} ${one.client_id} ${one.subject}`} class=${MILD.has(one.kind) ? "warn" : "bad"}>
    <div title=${one.text}><b>${TROUBLES[one.kind] ?? one.kind.replaceAll("_", " ")}</b>${one.client_id ? html`: <${Who} client=${one} issuers=${issuers} />` : one.subject ? html`: <code><${Said} text=${one.subject} most=${16} /></code>` : ""}
      ${one.iss && !one.client_id && html`${" "}<span class="iss">${host(one.iss)}</span>`}
      <p>${[one.since && html`since <${Ago} at=${one.since} suffix="" />`, one.count > 0 && `${counted(one.count, "delivery", "deliveries")} put off`, service.workers.answered > 1 && `at ${one.workers.length} of ${service.workers.answered} workers`].filter(Boolean).map((part, nth) => html`${nth ? ", " : ""}${part}`)}: <${Said} text=${one.text} /></p></div>
    <div class="ways">${one.explained && html`<button type="button" onClick=${() => explain(one.explained)}>What to do</button>`}
      ${one.kind === "registry_source_failed" && may("repair") && unbound() && html`<${ReadSources} />`}
      ${one.kind.startsWith("signing") && html`<a class="button" href="#/keys">Keys</a>`}</div></li>`)}</ul></section>` : queueList}
  <section><h2>Last 15 minutes</h2><${Plot} bars=${bars(service, 180)} slots=${180} width=${service.timeline.step} unit="s" label="15 min" at=${state.plotAt} onAt=${(at) => update({ plotAt: at })} /></section></div>
  <section ...${held}><h2>Clients that do not get their logouts ${failing > service.clients.length && html`<a class="more" href="#/clients?state=troubled">all ${number(failing)}</a>`}</h2>
    <${Table} caption="Clients in trouble" keyOf=${keyOf} rows=${settled(service.clients, keyOf)} empty=${`None. ${counted(states.well, "client")} without trouble.`}
      columns=${[...clientColumns(issuers), { head: html`<span class="hidden">Actions</span>`, act: true, cell: (c) => c.waits > 0 && c.waits_for !== "unknown" && html`<${Retry} client=${c} />` }]} />
    ${unknown > 20 && html`<p class="dim note">${number(unknown)} more wait for clients that the workers have not met since they started; <a href="#/waiting">Waiting</a> says for which.</p>`}</section>
  <div class="columns">${any && queueList}<section><h2>Workers</h2>${!service.workers.each.length ? html`<p class="empty">No worker answers.</p>` : html`<ul class="lines">${service.workers.each.map((w) => html`<li key=${w.worker}><b><${Said} text=${w.worker} most=${60} /></b>${" "}<span class="dim">${w.version}</span>${" "}
    ${w.draining ? html`<span class="chip warn">draining</span>` : html`<span class="dim">up <${Ago} at=${w.since} suffix="" /></span>`}<br />${number(Math.round(w.rates.delivered * 10) / 10)} delivered a second, ${number(w.in_flight)} in flight</li>`)}</ul>`}</section></div>`;
}

// ── clients ──

const CLIENT_STATES = [["", "all"], ["troubled", "in trouble"], ["rests", "down"], ["tried", "tried now"], ["fails", "fails"], ["put_off", "held back"], ["well", "no trouble"]];
function Clients({ data, query }) {
  const issuers = issuerCount();
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
    <${Filter} key="q" name="q" label="Search" placeholder="id, name or address" value=${query.q} />
    <${Filter} name="state" label="State" value=${query.state} options=${CLIENT_STATES.map(([key, word]) => [key, data && key && key !== "troubled" ? `${word} (${number(data.states[key])})` : word])} />
    ${issuerFilter(query)}
    <${Filter} name="order" label="First" value=${query.order} options=${[["", "most trouble"], ["name", "by name"], ["waits", "most waiting"], ["dead", "most given up"]]} /></form>
  ${!data ? html`<p class="dim">Asking the workers …</p>` : html`<div ...${held}><${Table} caption="Clients" keyOf=${keyOf} rows=${settled(data.clients, keyOf)} empty="No client is like that."
    columns=${[...clientColumns(issuers).slice(0, 4), { head: "Waits", num: true, cell: (c) => (c.waits ? number(c.waits) : html`<span class="dim">0</span>`) },
      { head: "Delivered", num: true, cell: (c) => number(c.delivered) }, { head: "Given up", num: true, cell: (c) => (c.dead ? html`<a href=${hash("dead", { client_id: c.client_id, iss: c.iss })}>${number(c.dead)}</a>` : html`<span class="dim">0</span>`) },
      { head: "Last success", cell: (c) => html`<${Ago} at=${c.last_success} none=${c.tried ? "never" : "not yet tried"} />` }, ...clientColumns(issuers).slice(5)]} />
    <${Pages} skip=${data.skip} rows=${ROWS} total=${data.total} go=${(skip) => ask({ skip: skip || "" })} />
    <p class="dim note">Delivered and given up are counted since the workers started.</p></div>`}`;
}

function clientSentence(c, registered, data) {
  const waits = c.waits ? `${counted(c.waits, "delivery waits", "deliveries wait")} for it.` : "Nothing waits for it.";
  const since = c.failing_since ? ` since ${clock(c.failing_since)} (${inWords((now() - Date.parse(c.failing_since)) / 1000)})` : "";
  const next = c.next_attempt ? Date.parse(c.next_attempt) - now() > 500 ? `It is tried again in ${inWords((Date.parse(c.next_attempt) - now()) / 1000)}.` : "It is tried now." : "";
  if (!registered) return ["warn", data.fault ? `It cannot be used: ${data.fault}` : "Nobody registered this client.", waits];
  if (c.state === "rests" || c.state === "tried") return ["bad", `Down${since}.`, `${next} ${waits}`];
  if (c.state === "put_off") return ["warn", c.paused ? "Paused by the registry." : `Held back: ${c.waits_for}.`, `${waits} ${next}`];
  if (c.state === "fails") return ["warn", `Its last attempts failed${since}.`, `${waits} ${next}`];
  return [c.tried ? "good" : "", c.tried ? "No trouble." : "Not tried since the workers started.", waits];
}

function ClientPage({ data }) {
  if (!data) return state.page.problem ? html`<p><a href="#/clients">All clients</a></p>` : html`<p class="dim">Asking the workers …</p>`;
  const { client: c, registered } = data, [tone, head, tail] = clientSentence(c, registered, data);
  const last = state.retries.get(keyOf(c))?.result;
  const minute = Math.floor(now() / 60000), byMinute = new Map(data.minutes.map(([at, ...counts]) => [at / 60, counts]));
  const slots = Array.from({ length: 60 }, (_, nth) => { const at = minute - 59 + nth, [ok, failed] = byMinute.get(at) ?? [0, 0]; return [at * 60000, ok, failed, 0]; });
  return html`<p class="sub"><a href="#/clients">Clients</a> › ${c.name && html`<${Said} text=${c.name} most=${80} /> · `}<${Said} text=${c.iss} className="dim" /></p>
  <section class="band big ${tone}" aria-live="polite"><div><b>${head}</b> <span>${tail}</span>
    ${c.state !== "well" && c.reason && html`<p><${Answer} row=${c} explain=${explain} /></p>`}</div>
    <div class="ways">${registered && html`<${Retry} client=${c} />`}<a class="button" href=${hash("waiting", { client_id: c.client_id, iss: c.iss })}>Waiting</a>
      <a class="button" href=${hash("dead", { client_id: c.client_id, iss: c.iss })}>Dead letters</a></div></section>
  ${last?.asked > 0 && may("repair") && html`<p class="band warn">${counted(last.asked, "delivery stays", "deliveries stay")}: the client asked not to be called before ${last.next_try ? clock(last.next_try) : "later"} (Retry-After), or the registry pauses it.
    <button type="button" onClick=${() => retry(c, true)}>Try these too</button></p>`}
  <div class="columns"><section><h2>Attempts of the last hour</h2><${Plot} bars=${slots} slots=${60} width=${1} unit="min" label="an hour, a minute a bar" at=${state.plotAt} onAt=${(at) => update({ plotAt: at })} /></section>
  <section><h2>Registration</h2>${registered ? html`<dl class="facts">
    <dt>Address</dt><dd><code><${Said} text=${registered.backchannel_logout_uri ?? registered.frontchannel_logout_uri ?? "none: nobody can tell it"} /></code></dd>
    <dt>Token</dt><dd>${registered.alg}${registered.typ ? `, ${registered.typ}` : ""}, names ${registered.subject}${registered.encrypted ? ", encrypted" : ""}</dd>
    <dt>Limits</dt><dd>${registered.timeout} s a call, ${registered.max_concurrent} at a time${registered.per_second ? `, ${registered.per_second}/s` : ""}; given up after ${inWords(registered.max_age)}</dd>
    <dt>Besides</dt><dd>${[registered.preset && `preset ${registered.preset}`, registered.headers && counted(registered.headers, "further header"), registered.proxy && "a proxy", registered.mutual_tls && "mutual TLS", registered.paused && "paused"].filter(Boolean).join(", ") || "nothing"}</dd>
    <dt>Since start</dt><dd>${number(c.delivered)} delivered, ${number(c.dead)} given up, ${number(c.put_off)} put off; last success <${Ago} at=${c.last_success} none="never" /></dd></dl>` : html`<p class="empty">None.</p>`}</section></div>
  <section><h2>Last answers</h2><${Table} caption="Last answers" rows=${data.answers} empty="No attempt since the workers started." keyOf=${(row) => `${row.worker} ${row.n}`} columns=${[
    { head: "When", cell: (row) => html`<${Clock} at=${row.at} />` }, { head: "", label: "Outcome", cell: (row) => html`<span class="chip ${KINDS[row.kind]}">${row.kind}</span>` },
    { head: "Answer", say: true, cell: (row) => html`<${Answer} row=${row} explain=${explain} />` }, { head: "Took", num: true, cell: (row) => `${number(Math.round(row.seconds * 1000))} ms` },
    { head: "Attempt", num: true, cell: (row) => row.attempt }, { head: "Next", cell: (row) => html`<${Until} at=${row.next_due} />` },
    { head: "Event", cell: (row) => html`<a href=${hash("find", { event_id: row.event_id })}><code>${row.event_id.slice(0, 8)}</code></a>` }]} /></section>
  ${data.workers.length > 1 && html`<section><h2>At each worker</h2><${Table} caption="At each worker" rows=${data.workers} keyOf=${(row) => row.worker} columns=${[
    { head: "Worker", cell: (row) => row.worker }, { head: "State", cell: (row) => html`<${Chip} state=${row.state} />` }, { head: "Waits", num: true, cell: (row) => number(row.waits) },
    { head: "Next try", cell: (row) => html`<${Until} at=${row.next_attempt} />` }, { head: "Delivered", num: true, cell: (row) => number(row.delivered) }, { head: "Last answer", wide: true, cell: (row) => html`<${Answer} row=${row} explain=${explain} />` }]} /></section>`}`;
}

// ── dead letters ──

const AGES = [["", "any time"], ["1h", "last hour"], ["24h", "last day"], ["7d", "last week"]];
const chosen = (query) => ({ client_id: query.client_id, iss: query.iss, event_id: query.event_id, reason: query.reason ? [query.reason] : undefined, since: query.since });
const narrowed = (filter) => Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined && value !== ""));

async function begin(action, filter, data) {
  const hours = { "1h": 1, "24h": 24, "7d": 168 }[filter.since];
  const fixed = narrowed({ ...filter, since: hours && new Date(now() - hours * 36e5).toISOString(), until: filter.id ? undefined : data.as_of });
  if (!Object.keys(fixed).some((name) => name !== "until")) fixed.all = true;
  update({ dialog: { kind: "repair", still: true, action, filter, fixed, total: data.total } });
  try {
    const dry = action === "replay" ? await api("dead-letters/replay", { body: { ...fixed, dry_run: true, limit: 10000 } })
      : await api("dead-letters", { method: "DELETE", query: { ...fixed, dry_run: true, limit: 10000 } });
    if (state.dialog?.fixed === fixed) update({ dialog: { ...state.dialog, dry } });
  } catch (problem) { if (state.dialog?.fixed === fixed) update({ dialog: { ...state.dialog, problem } }); }
}

async function carryOut() {
  const { action, fixed } = state.dialog, done = action === "replay" ? "replayed" : "discarded";
  let count = 0, kept = {};
  update({ dialog: { ...state.dialog, busy: true } });
  try {
    for (;;) {
      const answer = action === "replay" ? await api("dead-letters/replay", { body: { ...fixed, limit: 1000 } })
        : await api("dead-letters", { method: "DELETE", query: { ...fixed, limit: 1000 } });
      count += answer[done]; kept = answer.kept ?? {};
      if (state.dialog?.fixed !== fixed) break;
      update({ dialog: { ...state.dialog, count } });
      if (!answer.more || !answer[done]) break;
    }
    notice(`${counted(count, "letter")} ${done}${sum(kept) ? `; ${number(sum(kept))} stay: ${Object.keys(kept).join(", ")}` : ""}.`, sum(kept) ? "warn" : "good");
    if (state.dialog?.fixed === fixed) update({ dialog: null });
  } catch (problem) {
    notice(`${problem.message} ${count ? `${counted(count, "letter")} ${done} before that.` : "Nothing was changed."}`, "bad");
    if (state.dialog?.fixed === fixed) update({ dialog: { ...state.dialog, busy: false, problem } });
  }
  follow();
}

/** The confirmation: it names the number, and what the number is made of. */
function Repair({ dialog, close }) {
  const { action, dry, filter, busy, problem, typed = "" } = dialog, replay = action === "replay";
  const count = dry && dry[replay ? "replayed" : "discarded"], many = dry?.more ? `more than ${number(count)}` : number(count);
  const which = Object.entries(narrowed(filter)).map(([name, value]) => html`<dt>${name}</dt><dd><${Said} text=${[value].flat().join(", ")} most=${120} /></dd>`);
  const ready = dry && count > 0 && !busy && (replay || typed.replace(/\D/g, "") === String(count));
  return html`<${Dialog} title=${replay ? "Replay dead letters" : "Discard dead letters"} onClose=${close}>
    <dl class="facts">${which.length ? which : html`<dt>which</dt><dd>all of them</dd>`}${dialog.fixed.until && html`<dt>until</dt><dd>${clock(dialog.fixed.until, true)}: what came later stays</dd>`}</dl>
    ${problem ? html`<p class="band bad" role="alert">${problem.message}</p>` : !dry ? html`<p role="status">Counting, without changing anything …</p>` : html`
      <p class="count"><b>${many}</b> ${replay ? "would be delivered again" : "would be deleted for good"}.</p>
      ${sum(dry.by_reason) > 0 && html`<p class="dim">${Object.entries(dry.by_reason).map(([reason, each]) => `${reason} ${number(each)}`).join(" · ")}</p>`}
      ${sum(dry.kept) > 0 && html`<p class="band warn">${number(sum(dry.kept))} would stay: ${Object.entries(dry.kept).map(([why, each]) => `${why} ${number(each)}`).join(" · ")}</p>`}
      ${!replay && count > 0 && html`<label class="typed">Their clients are never told of these logouts. Type <b>${count}</b> to go on.
        <input inputmode="numeric" autocomplete="off" value=${typed} onInput=${(event) => update({ dialog: { ...dialog, typed: event.target.value } })} /></label>`}`}
    <footer><button type="button" class="quiet" onClick=${close} autofocus>Cancel</button>
      <button type="button" class=${replay ? "main" : "danger"} disabled=${!ready} onClick=${carryOut}>${busy ? `${number(dialog.count ?? 0)} so far …` : !dry ? "…" : replay ? `Replay ${many} ${count === 1 ? "letter" : "letters"}` : `Delete ${many} ${count === 1 ? "letter" : "letters"}`}</button></footer><//>`;
}

async function showLetter(letter) {
  update({ dialog: { kind: "letter", letter } });
}
async function showWhole(letter) {
  try {
    const whole = await api(`dead-letters/${encodeURIComponent(letter.id)}`);
    if (state.dialog?.letter === letter) update({ dialog: { ...state.dialog, whole } });
  } catch (problem) { if (state.dialog?.letter === letter) update({ dialog: { ...state.dialog, problem } }); }
}
function Letter({ dialog, close }) {
  const { letter, whole, problem } = dialog;
  return html`<${Dialog} side title="Dead letter" onClose=${close}>
    <dl class="facts"><dt>Client</dt><dd><${Who} client=${letter} issuers=${2} /></dd>
      <dt>Given up</dt><dd>${clock(letter.dead_since, true)} (<${Ago} at=${letter.dead_since} />)</dd>
      <dt>Reason</dt><dd><button type="button" class="word" onClick=${() => explain(letter.reason)}>${letter.reason}</button></dd>
      <dt>Said</dt><dd><${Said} text=${letter.text} most=${1000} className="quote" /></dd>
      <dt>Attempts</dt><dd>${letter.attempts}</dd><dt>Event</dt><dd><a href=${hash("find", { event_id: letter.event_id })}><code>${letter.event_id}</code></a></dd><dt>Letter</dt><dd><code>${letter.id}</code></dd></dl>
    ${may("repair") && html`<p class="row"><button type="button" onClick=${() => begin("replay", { id: [letter.id] }, { total: 1 })}>Replay this one …</button>
      <button type="button" class="danger-quiet" onClick=${() => begin("discard", { id: [letter.id] }, { total: 1 })}>Discard this one …</button></p>`}
    ${problem && html`<p class="band bad" role="alert">${problem.message}</p>`}
    ${whole ? html`<h3>The whole letter</h3><pre class="json"><${Said} text=${JSON.stringify(whole, null, 2)} most=${20000} lines /></pre>`
      : html`<p class="row"><button type="button" onClick=${() => showWhole(letter)}>Show all of it</button> <span class="dim">It names the user (sub, sid). The audit notes that you looked.</span></p>`}<//>`;
}

function Dead({ data, query }) {
  const issuers = issuerCount(), filter = chosen(query), newer = data && state.service?.queues.dead && !Object.keys(narrowed(filter)).length ? state.service.queues.dead.ready - data.total : 0;
  const reasons = Object.entries(data?.reasons ?? {});
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
    <${Filter} key="client" name="client_id" label="Client" value=${query.client_id} placeholder="its id, whole" />${issuerFilter(query)}
    <${Filter} name="since" label="Given up" value=${query.since} options=${AGES} /><${Filter} key="event" name="event_id" label="Event" value=${query.event_id} placeholder="its id, whole" /></form>
  ${!data ? html`<p class="dim">Going through the letters: some seconds if there are very many …</p>` : html`
  <div class="reasons" role="group" aria-label="Reasons">
    <button type="button" class="reason" aria-pressed=${!query.reason} onClick=${() => ask({ reason: "", skip: "" })}>all <b>${number(sum(data.reasons))}</b></button>
    ${reasons.map(([reason, count]) => html`<button type="button" class="reason" aria-pressed=${query.reason === reason} onClick=${() => ask({ reason: query.reason === reason ? "" : reason, skip: "" })}>${reason} <b>${number(count)}</b></button>`)}</div>
  <p class="row between"><span class="dim">As of ${clock(data.as_of)} (<${Ago} at=${data.as_of} />). ${newer > 0 ? `${number(newer)} came since. ` : newer < 0 ? `${number(-newer)} went since. ` : ""}<button type="button" class="quiet" onClick=${() => { fresh = true; follow(); }} disabled=${state.page.loading}>${state.page.loading ? "Looking …" : "Look again"}</button>
      ${query.reason && html`<button type="button" class="quiet" onClick=${() => explain(query.reason)}>What ${query.reason} means</button>`}</span>
    ${may("repair") && data.total > 0 && html`<span class="row"><button type="button" class="do" onClick=${() => begin("replay", filter, data)}>Replay these ${number(data.total)} …</button>
      <button type="button" class="danger-quiet" onClick=${() => begin("discard", filter, data)}>Discard these ${number(data.total)} …</button></span>`}</p>
  ${data.groups.length > 1 && html`<details><summary>By client</summary><${Table} caption="By client and reason" rows=${data.groups} keyOf=${(g) => `${g.iss} ${g.client_id} ${g.reason}`} columns=${[
    { head: "Client", wide: true, cell: (g) => html`<${Who} client=${g} issuers=${issuers} />` }, { head: "Reason", cell: (g) => g.reason }, { head: "Letters", num: true, cell: (g) => number(g.count) },
    { head: "", label: "Show", act: true, cell: (g) => html`<a class="button" href=${hash("dead", { client_id: g.client_id, iss: g.iss, reason: g.reason })}>Only these</a>` }]} />${data.more_groups > 0 && html`<p class="dim">and ${counted(data.more_groups, "smaller group")}</p>`}</details>`}
  <${Table} caption="Dead letters" rows=${data.letters} keyOf=${(l) => l.id} empty="No dead letter is like that." columns=${[
    { head: "Given up", cell: (l) => html`<${Clock} at=${l.dead_since} />` }, { head: "Client", wide: true, cell: (l) => html`<${Who} client=${l} issuers=${issuers} />` },
    { head: "Reason", cell: (l) => html`<button type="button" class="word" onClick=${() => explain(l.reason)}>${l.reason}</button>` },
    { head: "What was said", say: true, cell: (l) => html`<${Said} text=${l.text} most=${200} className="quote" />` }, { head: "Attempts", num: true, cell: (l) => l.attempts },
    { head: html`<span class="hidden">Actions</span>`, act: true, cell: (l) => html`<button type="button" onClick=${() => showLetter(l)}>Show</button>` }]} />
  <${Pages} skip=${data.skip} rows=${ROWS} total=${data.total} go=${(skip) => ask({ skip: skip || "" })} />`}`;
}
let fresh = false;

// ── waiting ──

function Waiting({ data, query }) {
  const issuers = issuerCount(), filter = narrowed({ client_id: query.client_id, iss: query.iss, event_id: query.event_id }), skip = Number(query.skip) || 0;
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
    <${Filter} key="client" name="client_id" label="Client" value=${query.client_id} placeholder="its id, whole" />${issuerFilter(query)}<${Filter} key="event" name="event_id" label="Event" value=${query.event_id} placeholder="its id, whole" /></form>
  ${!data ? html`<p class="dim">Going through what waits …</p>` : html`<p class="row between"><span class="dim">As of ${clock(state.page.at)}. It is not followed, since each look goes through the queues. <button type="button" class="quiet" disabled=${state.page.loading} onClick=${follow}>Look again</button></span>
    ${may("repair") && data.total > 0 && Object.keys(filter).length > 0 && html`<button type="button" class="danger-quiet" onClick=${() => beginCancel(filter)}>Cancel these ${number(data.total)} …</button>`}</p>
  <${Table} caption="What waits, by client and reason" rows=${data.groups.slice(0, 100)} empty="Nothing waits." keyOf=${(g) => `${g.iss} ${g.client_id} ${g.where} ${g.reason}`} columns=${[
    { head: "Client", wide: true, cell: (g) => html`<${Who} client=${g} issuers=${issuers} />${g.hint && html` <span class="dim">${g.hint}</span>`}` },
    { head: "For", cell: (g) => html`<button type="button" class="word" onClick=${() => explain(g.reason)}>${g.reason || "–"}</button>` },
    { head: "Where", cell: (g) => (g.where === "parked" ? "parked until it is well" : "delayed") }, { head: "Count", num: true, cell: (g) => number(g.count) },
    { head: "Oldest", cell: (g) => html`<${Ago} at=${g.oldest} />` }, { head: "Next", cell: (g) => html`<${Until} at=${g.next} />` },
    { head: html`<span class="hidden">Actions</span>`, act: true, cell: (g) => html`${g.client_id && g.reason !== "unknown" && html`<${Retry} client=${g} />`} ${!query.client_id && g.client_id && html`<a class="button" href=${hash("waiting", { client_id: g.client_id, iss: g.iss })}>Only these</a>`}` }]} />
  ${data.groups.length > 100 && html`<p class="dim note">and ${counted(data.groups.length - 100, "smaller group")}: choose a client or an issuer.</p>`}
  ${data.deliveries?.length > 0 && html`<section><h2>One by one</h2><${Table} caption="Deliveries that wait" rows=${data.deliveries} keyOf=${(d) => d.id} columns=${[
    { head: "Client", wide: true, cell: (d) => html`<${Who} client=${d} issuers=${issuers} />` }, { head: "Since", cell: (d) => html`<${Ago} at=${d.since} suffix="" />` }, { head: "Due", cell: (d) => html`<${Until} at=${d.due} none="when it is well" />` },
    { head: "Last answer", say: true, cell: (d) => html`<${Answer} row=${d} explain=${explain} />` }, { head: "Attempts", num: true, cell: (d) => d.attempts },
    { head: "Event", cell: (d) => html`<a href=${hash("find", { event_id: d.event_id })}><code>${d.event_id.slice(0, 8)}</code></a>` }]} />
    <${Pages} skip=${skip} rows=${ROWS} total=${data.total} go=${(to) => ask({ skip: to || "" })} /></section>`}`}`;
}

async function beginCancel(filter) {
  update({ dialog: { kind: "cancel", still: true, filter } });
  try { const dry = await api("waiting", { method: "DELETE", query: { ...filter, dry_run: true } }); if (state.dialog?.filter === filter) update({ dialog: { ...state.dialog, dry } }); }
  catch (problem) { if (state.dialog?.filter === filter) update({ dialog: { ...state.dialog, problem } }); }
}
function Cancel({ dialog, close }) {
  const { filter, dry, problem, busy, typed = "" } = dialog;
  const go = async () => {
    update({ dialog: { ...dialog, busy: true } });
    try { const done = await api("waiting", { method: "DELETE", query: filter }); notice(`${counted(done.cancelled, "delivery", "deliveries")} cancelled${done.more ? "; there are more" : ""}.`); update({ dialog: null }); }
    catch (failed) { update({ dialog: { ...dialog, busy: false, problem: failed } }); }
    follow();
  };
  return html`<${Dialog} title="Cancel what waits" onClose=${close}><dl class="facts">${Object.entries(filter).map(([name, value]) => html`<dt>${name}</dt><dd><${Said} text=${value} most=${120} /></dd>`)}</dl>
    ${problem ? html`<p class="band bad" role="alert">${problem.message}</p>` : !dry ? html`<p role="status">Counting …</p>` : html`<p class="count"><b>${number(dry.cancelled)}</b> would be deleted for good: their clients are never told of these logouts.</p>
      <label class="typed">Type <b>${dry.cancelled}</b> to go on. <input inputmode="numeric" autocomplete="off" value=${typed} onInput=${(event) => update({ dialog: { ...dialog, typed: event.target.value } })} /></label>`}
    <footer><button type="button" class="quiet" onClick=${close} autofocus>Keep them</button><button type="button" class="danger" disabled=${!dry?.cancelled || busy || typed.replace(/\D/g, "") !== String(dry.cancelled)} onClick=${go}>Cancel ${number(dry?.cancelled)} deliveries</button></footer><//>`;
}

// ── what became of a logout ──

async function find(asked) {
  update({ page: { ...state.page, data: { asked, busy: true } } });
  const result = { asked };
  const take = async (name, work) => { try { result[name] = await work; } catch (problem) { result[name] = { problem }; } };
  await Promise.all([
    take("facts", api("find", { body: asked })), take("letters", api("dead-letters/find", { body: asked })),
    take("waiting", api("waiting/find", { body: asked })),
  ]);
  if (state.route.name === "find") update({ page: { ...state.page, data: result } });
}

function Find({ data, query }) {
  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target), what = form.get("what").trim();
    if (what) find(form.get("kind") === "event" ? { event_id: what } : { subject: what });
  };
  const rows = data && [...(data.facts?.facts ?? []).map((row) => ({ ...row, from: "a worker" })),
    ...(data.letters?.letters ?? []).map((l) => ({ ...l, at: l.dead_since, kind: "dead", from: "dead letters", n: l.id })),
    ...(data.waiting?.deliveries ?? []).map((d) => ({ ...d, at: d.since ?? new Date().toISOString(), kind: "waits", next_due: d.due, from: "what waits", n: d.id }))]
    .filter((row, nth, all) => !(row.kind === "dead" && row.from === "a worker" && all.some((other) => other.from === "dead letters" && other.event_id === row.event_id && other.client_id === row.client_id)))
    .sort((one, other) => Date.parse(one.at) - Date.parse(other.at));
  const problems = data && ["facts", "letters", "waiting"].map((name) => data[name]?.problem).filter(Boolean);
  return html`<form class="filters find" onSubmit=${submit} autocomplete="off">
    <label>Find <select name="kind" defaultValue=${query.event_id ? "event" : "user"}><option value="user">a user or session (sub or sid)</option><option value="event" selected=${Boolean(query.event_id)}>an event, by its id</option></select></label>
    <label class="grow">It is <input name="what" type="search" required maxlength="1000" spellcheck="false" autocomplete="off" defaultValue=${query.event_id ?? ""} /></label><button class="main">Find</button></form>
  <p class="dim note">What you type is sent in the body of the request, never in an address; the audit notes that you looked, not for whom. Answers name no user.</p>
  ${data?.busy ? html`<p role="status">Looking …</p>` : data && html`${problems.map((problem) => html`<p class="band warn">${problem.message}</p>`)}
    <${Table} caption="What became of it" rows=${rows} keyOf=${(row) => `${row.from} ${row.worker ?? ""} ${row.n}`} empty="Nobody remembers it." columns=${[
      { head: "When", cell: (row) => html`<${Clock} at=${row.at} />` }, { head: "", label: "Fate", cell: (row) => html`<span class="chip ${KINDS[row.kind] ?? "warn"}">${row.kind}</span>` },
      { head: "Client", wide: true, cell: (row) => html`<${Who} client=${row} issuers=${issuerCount()} />` }, { head: "Answer", say: true, cell: (row) => html`<${Answer} row=${row} explain=${explain} />` },
      { head: "Next", cell: (row) => html`<${Until} at=${row.next_due} />` }, { head: "Event", cell: (row) => html`<a href=${hash("find", { event_id: row.event_id })}><code>${String(row.event_id).slice(0, 8)}</code></a>` }, { head: "Told by", cell: (row) => html`<span class="dim">${row.from}</span>` }]} />
    <p class="dim note">${data.facts?.remembered_since ? `Workers remember since ${clock(data.facts.remembered_since, true)}. ` : ""}What was delivered before is in the log alone: <code>notifier log-id -c n.yaml SUB --in notifier.log</code>.</p>`}`;
}

// ── live ──

function Live({ data, query }) {
  const issuers = issuerCount(), words = (query.q ?? "").toLowerCase();
  const rows = (data?.facts ?? []).filter((row) => !words || [row.client_id, row.reason, row.text, row.kind, row.iss].some((text) => text?.toLowerCase().includes(words))).slice(-300).reverse();
  return html`<form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}><${Filter} key="q" name="q" label="Only with" placeholder="client, reason, text" value=${query.q} />
    <label class="check"><input type="checkbox" checked=${query.good === "true"} onChange=${(event) => ask({ good: event.target.checked ? "true" : "" })} /> deliveries too</label>
    <button type="button" aria-pressed=${Boolean(state.paused)} onClick=${() => { update({ paused: !state.paused }); follow(); }}>${state.paused ? "Go on" : "Pause"}</button></form>
  <${Table} caption="What happens" rows=${rows} keyOf=${(row) => `${row.worker} ${row.n}`} empty=${data ? "Nothing failed of late." : "Asking the workers …"} columns=${[
    { head: "When", cell: (row) => html`<${Clock} at=${row.at} />` }, { head: "", label: "What", cell: (row) => html`<span class="chip ${KINDS[row.kind]}">${row.kind === "put_off" ? "put off" : row.kind}</span>` },
    { head: "Client", wide: true, cell: (row) => html`<${Who} client=${row} issuers=${issuers} />` },
    { head: "Answer", say: true, cell: (row) => (row.reason ? html`<${Answer} row=${row} explain=${explain} />` : html`<span class="dim">${row.text}</span>`) },
    { head: "Took", num: true, cell: (row) => (row.seconds == null ? "" : `${number(Math.round(row.seconds * 1000))} ms`) }, { head: "Next", cell: (row) => (row.next_due ? html`<${Until} at=${row.next_due} />` : "") },
    { head: "Event", cell: (row) => row.event_id && html`<a href=${hash("find", { event_id: row.event_id })}><code>${row.event_id.slice(0, 8)}</code></a>` }]} />`;
}

// ── keys and registry ──

function ReadSources() {
  const go = async () => {
    try { const result = await api("reload", { method: "POST" }); notice(result.taken ? "All workers have read the configuration and the registry sources." : "Not all workers took it: see the troubles.", result.taken ? "good" : "warn"); }
    catch (problem) { notice(problem.message, "bad"); }
    follow();
  };
  return html`<button type="button" class="do" onClick=${go}>Read sources now</button>`;
}

function Keys({ data }) {
  const sources = (state.service?.workers.each ?? []).flatMap((worker) => worker.registry.map((source) => ({ ...source, worker: worker.worker })));
  const byKey = new Map();
  for (const key of data?.keys ?? []) { const id = `${key.iss} ${key.kid} ${key.use}`; byKey.set(id, { ...key, algs: [...(byKey.get(id)?.algs ?? []), key.alg] }); }
  return html`<section><h2>Signing keys</h2>${!data ? html`<p class="dim">…</p>` : html`<${Table} caption="Signing keys" rows=${[...byKey.values()]} keyOf=${(k) => `${k.iss} ${k.kid} ${k.use}`} empty="No issuer is configured." columns=${[
    { head: "Issuer", wide: true, cell: (k) => html`<${Said} text=${host(k.iss)} />` }, { head: "Key", wide: true, cell: (k) => html`<code><${Said} text=${k.kid} most=${60} /></code>` }, { head: "For", wide: true, cell: (k) => k.algs.join(" ") },
    { head: "Use", cell: (k) => (k.use === "signs" ? "signs now" : "is to come") },
    { head: "Published", cell: (k) => (k.published === true ? html`<span class="chip good">published</span>` : k.published === false ? html`<span class="chip bad">missing</span>${" "}<button type="button" onClick=${() => explain("NotifierSigningKeyNotPublished")}>What to do</button>` : html`<span class="chip warn" title="The issuer's JWK Set was not read, or jwks_uri is not configured">not known</span>`) },
    { head: "Seen since", cell: (k) => html`<${Ago} at=${k.published_since} suffix="" />` }, { head: "Made", cell: (k) => html`<${Ago} at=${k.made_at} />` }]} />`}</section>
  <section><h2>Registry sources ${may("repair") && unbound() && html`<${ReadSources} />`}</h2><${Table} caption="Registry sources" rows=${sources} keyOf=${(s) => `${s.worker} ${s.name}`} empty="No source but the configuration's own files." columns=${[
    { head: "Source", cell: (s) => html`<${Said} text=${s.name} />` }, { head: "Kind", cell: (s) => s.kind }, { head: "Worker", cell: (s) => s.worker },
    { head: "State", cell: (s) => (s.up ? html`<span class="chip good">up</span>` : s.problem ? html`<span class="chip bad">fails</span>` : html`<span class="chip warn">not read yet</span>`) },
    { head: "Confirmed", cell: (s) => `${inWords(s.age)} ago` }, { head: "Clients", num: true, cell: (s) => number(s.clients) }, { head: "Problem", wide: true, cell: (s) => s.problem && html`<${Said} text=${s.problem} className="quote" />` }]} /></section>`;
}

export const dialogs = { repair: Repair, letter: Letter, cancel: Cancel };
export const PAGES = {
  overview: { title: "Overview", nav: true, view: Overview },
  clients: { title: "Clients", nav: true, every: 3000, view: Clients, load: (q, signal) => api("clients", { signal, query: { q: q.q, state: q.state, iss: q.iss, order: q.order, skip: q.skip, rows: ROWS } }) },
  client: { title: "Client", heading: (query) => html`<${Said} text=${query.client_id} most=${120} />`, fresh: true, every: 2000, view: ClientPage, load: (q, signal) => api("client", { signal, query: { iss: q.iss, client_id: q.client_id } }) },
  dead: { title: "Dead letters", nav: true, view: Dead, load: (q, signal) => { const age = fresh ? 0 : 60; fresh = false; return api("dead-letters/page", { signal, query: { ...chosen(q), rows: ROWS, skip: q.skip, age } }); } },
  waiting: { title: "Waiting", nav: true, view: Waiting, load: (q, signal) => api("waiting", { signal, query: { client_id: q.client_id, iss: q.iss, event_id: q.event_id, rows: ROWS, skip: q.skip } }) },
  find: { title: "Find a logout", nav: true, fresh: true, view: Find, load: async (q) => { if (q.event_id) await find({ event_id: q.event_id }); return state.page.data; } },
  live: { title: "Live", nav: true, fresh: true, every: 1000, view: Live, load: async (q, signal, before) => {
    if (state.paused && before) return before;
    const answer = await api("recent", { signal, query: { after: before?.next, good: q.good } });
    return { next: answer.next, facts: [...(before?.facts ?? []), ...answer.facts].slice(-1000) };
  } },
  keys: { title: "Keys and registry", nav: true, every: 10000, view: Keys, load: (q, signal) => api("keys", { signal }) },
};
