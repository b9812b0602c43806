// The doctor, started by the user: it checks everything that a logout depends on, and ends no session.
import { formatTime, html } from "./text.js";
import { LoadingNote, NeedsToken, Trouble, notice } from "./parts.js";
import { Findings } from "./findings.js";
import { api, coversAllIssuers } from "./api.js";
import { loadPage } from "./following.js";
import { state } from "./state.js";

/** Return the later result. The doctor runs at one worker; behind a load balancer another may answer. */
export async function loadDoctor(_query, signal, before) {
  const result = await api("doctor", { signal });
  return (result.began_at ?? "") < (before?.began_at ?? "") ? before : result;
}

async function runChecks() {
  try {
    await api("doctor", { method: "POST" });
  } catch (problem) {
    notice(problem.message, "bad");
  }
  loadPage();
}

function Progress({ data: { state, began_at, ended_at } }) {
  if (state === "running") return `Running since ${formatTime(began_at)}.`;
  if (ended_at) return `As of ${formatTime(ended_at)}.`;
  return "No checks were run since the worker started.";
}

export function Doctor({ data }) {
  if (!data) return html`<${LoadingNote}>Loading the last results …<//>`;
  const running = data.state === "running";
  return html`<p>The doctor checks the queue, clocks, keys, issuers, listeners and clients from one worker, as a logout
      ${" "}would use them. It ends no session and takes up to a minute.</p>
    ${state.me.open && html`<${NeedsToken} what="Running checks from here" command="notifier doctor -c notifier.yaml" />`}
    <p class="row">${coversAllIssuers() && !state.me.open && html`<button type="button" class="main" aria-disabled=${running ? "true" : undefined}
        onClick=${() => running || runChecks()}>${running ? "Running …" : "Run checks"}</button>`}
      <span class="dim" role="status"><${Progress} data=${data} /></span></p>
    ${data.problem && html`<${Trouble} problem=${{ message: data.problem }} />`}
    ${data.findings?.length > 0 && html`<${Findings} findings=${data.findings} />`}`;
}
