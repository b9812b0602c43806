// The words of pages for the names of the API.

/** The states of a client: the word, its tone, and its meaning. */
export const STATES = {
  rests: ["down", "bad", "Its last attempts failed. It rests, and is tried now and then."],
  tried: ["tried now", "bad", "It is down, and an attempt is under way."],
  hangs: ["hangs", "bad", "An attempt is under way and has had no answer for long."],
  fails: ["fails", "warn", "Its last attempt failed. The next deliveries are still tried."],
  put_off: ["held back", "warn", "Its deliveries are put off before any attempt: the cause says why."],
  untried: ["not tried", "", "No worker has called it since it started."],
  well: ["no trouble", "good", "Its last attempt went well, or none was needed."],
};

export const TROUBLES = {
  queue: "The queue is away",
  publishing_blocked: "The broker takes no message",
  events_refused: "Events are refused",
  signing_key_missing: "A signing key is not published",
  reload_failed: "The configuration cannot be read",
  reload_refused: "A reload was refused",
  registry_source_failed: "A registry source cannot be read",
  clock_differs: "A clock differs",
  unknown_issuer: "Events for an issuer nobody knows",
  unknown_client: "Events for a client nobody knows",
  unknown_version: "Messages of a later release",
  signer_failing: "The signer fails",
  signing: "No token can be signed that clients can verify",
  encryption: "No token can be encrypted",
  tls_files: "TLS files cannot be used",
  proxy: "The proxy refuses",
  origin: "A client left the origin of its headers or certificate",
  worker_vanished: "A worker has vanished",
  jwks_unread: "A JWK Set cannot be read",
  restart_needed: "A changed setting waits for a restart",
  queue_policy: "A policy of the broker overrides a queue",
  registry_source_beyond: "A registry source exceeds its permissions",
  registry_source_changed: "A registry source changed for many clients",
};

/** Troubles that delay no logout. */
export const MILD = new Set(["worker_vanished", "jwks_unread", "restart_needed", "queue_policy", "registry_source_beyond", "registry_source_changed"]);

/** The kinds of recent entries, with their tone. */
export const KINDS = {
  delivered: "good",
  recovered: "good",
  failed: "warn",
  put_off: "warn",
  waits: "warn",
  down: "bad",
  dead: "bad",
};
