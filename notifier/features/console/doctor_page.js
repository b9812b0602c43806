// The doctor, on request: it checks everything that a logout depends on, and ends no session.
import { clock, html } from "./text.js";
import { Asking, NeedsToken, Trouble, notice } from "./parts.js";
import { Findings } from "./findings.js";
import { api, unbound } from "./api.js";
import { follow } from "./following.js";
import { state } from "./state.js";

/** Return the later result. The doctor runs at one worker; behind a load balancer another may answer. */
export async function loadDoctor(_query, signal, before) {
  const told = await api("doctor", { signal });
  return (told.began_at ?? "") < (before?.began_at ?? "") ? before : told;
}

async function examine() {
  try {
    await api("doctor", { method: "POST" });
  } catch (problem) {
    notice(problem.message, "bad");
  }
  follow();
}

function Stands({ data: { state, began_at, ended_at } }) {
  if (state === "running") return `Since ${clock(began_at)}.`;
  if (ended_at) return `As of ${clock(ended_at)}.`;
  return "It has not examined anything since the worker started.";
}

export function Doctor({ data }) {
  if (!data) return html`<${Asking}>Asking for its last results …<//>`;
  const running = data.state === "running";
  return html`<p>It tries the queue, clocks, keys, issuers, listeners and clients as a logout would, from the worker that is
      ${" "}asked, and ends no session. It takes up to a minute.</p>
    ${state.me.open && html`<${NeedsToken} what="To have it look from here" command="notifier doctor -c notifier.yaml" />`}
    <p class="row">${unbound() && !state.me.open && html`<button type="button" class="main" aria-disabled=${running ? "true" : undefined}
        onClick=${() => running || examine()}>${running ? "It examines …" : data.ended_at ? "Examine again" : "Examine now"}</button>`}
      <span class="dim" role="status"><${Stands} data=${data} /></span></p>
    ${data.problem && html`<${Trouble} problem=${{ message: data.problem }} />`}
    ${data.findings?.length > 0 && html`<${Findings} findings=${data.findings} />`}`;
}
