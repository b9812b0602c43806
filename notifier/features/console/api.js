// Requests to the API: the same origin, a bearer token, no cookies, no cache, no redirects.
import { state } from "./state.js";

const ANSWER_TIMEOUT = 90_000; // milliseconds: a dry run with 100,000 dead letters takes a minute
const FILE_TIMEOUT = 3_600_000; // milliseconds
let handleRefusedToken = () => {};

/** Set the handler for a token that the API no longer accepts. */
export function onTokenRefused(callback) {
  handleRefusedToken = callback;
}

/** A failed request. `status` is 0 without a response, `again` the seconds of `Retry-After`. */
export class Problem extends Error {
  constructor(status, title, mistakes = [], again = 0) {
    super(title);
    Object.assign(this, { status, mistakes, again });
  }
}

/** Send a request, and return its JSON. With `body` it is a POST. With `file` return a Blob. Throws a Problem. */
export async function api(path, { query = {}, body, method, signal, token = state.token, file = false } = {}) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(file ? FILE_TIMEOUT : ANSWER_TIMEOUT);
  const answer = await sendRequest(`/v1/${path}${toQueryString(query)}`, {
    method: method ?? (body ? "POST" : "GET"),
    headers,
    body: body && JSON.stringify(body),
    signal: signal ? AbortSignal.any([signal, limit]) : limit,
    mode: "same-origin",
    credentials: "omit",
    cache: "no-store",
    redirect: "error",
    referrerPolicy: "no-referrer",
  });
  if (answer.ok && file) return answer.blob().catch(() => { throw new Problem(0, "The response ended early."); });
  const document = await answer.json().catch(() => null);
  if (answer.ok && document) return document;
  const title = document?.title ?? `The API returned status ${answer.status}.`;
  if (answer.status === 401 && state.me && token === state.token) handleRefusedToken(title);
  throw new Problem(answer.status, title, document?.mistakes, Number(answer.headers.get("Retry-After")));
}

async function sendRequest(address, request) {
  try {
    return await fetch(address, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const isTimeout = error.name === "TimeoutError";
    throw new Problem(0, isTimeout ? "The API did not respond in time." : "The API is unreachable.");
  }
}

/** A query without empty values. A list becomes a repeated parameter. */
function toQueryString(query) {
  const parameters = Object.entries(withoutEmpty(query)).flatMap(([name, value]) => [value].flat().map((item) => [name, item]));
  return parameters.length ? `?${new URLSearchParams(parameters)}` : "";
}

/** The members that are not empty. */
export function withoutEmpty(members) {
  const empty = [undefined, null, "", false];
  return Object.fromEntries(Object.entries(members).filter(([, value]) => !empty.includes(value)));
}

export const hasScope = (scope) => Boolean(state.me?.scopes.includes(scope));
/** True if the token is for all issuers. */
export const coversAllIssuers = () => state.me?.issuers === null;
export const issuerCount = () => state.me?.issuers_known.length ?? 1;
