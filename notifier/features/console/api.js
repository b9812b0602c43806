// Requests to the API: the same origin, a bearer token, no cookies, no cache, no redirects.
import { state } from "./state.js";

const ANSWER_WITHIN = 90_000; // milliseconds: reading 100,000 dead letters takes some seconds, a dry run a minute
const FILE_WITHIN = 3_600_000;
let refused = () => {};

/** Set the handler for a token that the API no longer accepts. */
export function whenRefused(callback) {
  refused = callback;
}

/** A failed request. `status` is 0 without a response. */
export class Problem extends Error {
  constructor(status, title, mistakes = [], again = 0) {
    super(title);
    Object.assign(this, { status, mistakes, again });
  }
}

/** Send a request. With `body` it is a POST. With `file` return a Blob, without a time limit. Throws a Problem. */
export async function api(path, { query = {}, body, method, signal, token = state.token, file = false } = {}) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(file ? FILE_WITHIN : ANSWER_WITHIN);
  const answer = await fetched(`/v1/${path}${search(query)}`, {
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
  if (answer.status === 401 && state.me && token === state.token) refused(title);
  throw new Problem(answer.status, title, document?.mistakes, Number(answer.headers.get("Retry-After")));
}

async function fetched(address, request) {
  try {
    return await fetch(address, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const late = error.name === "TimeoutError";
    throw new Problem(0, late ? "The API did not respond in time." : "The API is unreachable.");
  }
}

/** A query without empty values. A list becomes a repeated parameter. */
function search(query) {
  const given = Object.entries(narrowed(query)).flatMap(([name, value]) => [value].flat().map((each) => [name, each]));
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

/** The members that are not empty. */
export function narrowed(members) {
  const empty = [undefined, null, "", false];
  return Object.fromEntries(Object.entries(members).filter(([, value]) => !empty.includes(value)));
}

export const may = (scope) => Boolean(state.me?.scopes.includes(scope));
/** True if the token is for all issuers. */
export const unbound = () => state.me?.issuers === null;
export const issuerCount = () => state.me?.issuers_known.length ?? 1;
