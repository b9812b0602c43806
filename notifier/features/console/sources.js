// Have all workers read the configuration and the registry sources now.
import { api } from "./api.js";
import { html } from "./text.js";
import { notice } from "./parts.js";
import { refresh } from "./following.js";

async function readSources() {
  try {
    const { taken } = await api("reload", { method: "POST" });
    if (taken) notice("All workers reloaded the configuration and the registry sources.");
    else notice("Not all workers reloaded: see the problems.", "warn");
  } catch (problem) {
    notice(problem.message, "bad");
  }
  refresh();
}

export const ReadSources = () => html`<button type="button" class="do" onClick=${readSources}>Reload sources</button>`;
