// Have all workers retry a client now. It needs one click, since it is harmless.
import { api, hasScope } from "./api.js";
import { clientKey, notice } from "./parts.js";
import { html, formatDuration, toPlainText } from "./text.js";
import { refresh } from "./following.js";
import { state, update } from "./state.js";
import { followJob } from "./jobs.js";

const BUSY_MILLISECONDS = 10_000; // milliseconds until the button is enabled again, even if the client is slow

/** The last retry of a client that this tab started. */
export function retryOf(client) {
  const last = state.retries.get(clientKey(client));
  return last && { ...last, job: state.jobs.get(last.id) };
}

function isBusy(client) {
  const last = retryOf(client);
  if (!last || last.failed || last.job?.state === "ended" || client.state === "well") return false;
  return Date.now() - last.since < BUSY_MILLISECONDS;
}

export async function retry(client, force = false) {
  if (isBusy(client) && !force) return;
  const store = (members) => update({ retries: new Map(state.retries).set(clientKey(client), members) });
  const since = Date.now();
  store({ since });
  try {
    const { client_id, iss } = client;
    store({ since, id: followJob(await api("retry", { body: { client_id, iss, force } })) });
  } catch (problem) {
    store({ since, failed: true });
    notice(`${client.client_id} was not retried: ${problem.message}`, "bad");
  }
  refresh();
}

/** The retry button. It stays enabled while busy, as a disabled button loses the focus. */
export function Retry({ client }) {
  if (!hasScope("repair")) return null;
  const busy = isBusy(client);
  return html`<button type="button" class="do retry" aria-disabled=${busy ? "true" : undefined} onClick=${() => retry(client)}
    aria-label=${busy ? undefined : `Retry now: ${toPlainText(client.client_id)}`}
    title="All workers attempt this client now; its pending deliveries follow if it answers">
    ${busy ? `Retrying … ${formatDuration((Date.now() - retryOf(client).since) / 1000)}` : "Retry now"}</button>`;
}
