// The words of pages for the names of the API.

/** The states of a client: the word, its tone, and its meaning. */
export const STATES = {
  rests: ["unreachable", "bad", "Its last attempts failed. No delivery is sent until the next probe."],
  tried: ["probing", "bad", "It was unreachable. An attempt is in progress to find out whether it has recovered."],
  hangs: ["unresponsive", "bad", "An attempt is in progress and has had no answer for over a second."],
  fails: ["failing", "warn", "Its last attempt failed. New deliveries are still attempted."],
  paused: ["paused", "warn", "An operator has paused it. Its deliveries wait until the pause ends."],
  put_off: ["deferred", "warn", "Its deliveries wait without an attempt. See the cause."],
  untried: ["not tried", "", "No worker has sent it a delivery since the workers started."],
  well: ["healthy", "good", "Its last attempt succeeded, or none was needed."],
};

export const TROUBLES = {
  queue: "The queue is unavailable",
  publishing_blocked: "The broker blocks publishing",
  queue_refuses: "A queue refuses messages",
  events_refused: "Events are rejected",
  publisher_refused: "Requests of a publisher are refused",
  signing_key_missing: "A signing key is not published",
  reload_failed: "The configuration cannot be read",
  reload_refused: "A reload was rejected",
  registry_source_failed: "A registry source cannot be read",
  registry_loss_held: "Losses of clients are held back",
  registry_source_differs: "Workers know different clients",
  clock_differs: "The clocks of two hosts differ",
  unknown_issuer: "Events for an unconfigured issuer",
  unknown_client: "Events for an unregistered client",
  unknown_version: "Messages of a newer release",
  signer_failing: "The signer fails",
  signing: "No token can be signed that clients can verify",
  encryption: "No token can be encrypted",
  tls_files: "TLS files cannot be used",
  proxy: "The proxy rejects requests",
  origin: "A client's address left the origin of its headers or certificate",
  open_files: "A worker can open no further connection",
  access_token: "An access token cannot be obtained",
  session_only: "A client is notified of nothing",
  web_page: "A client answers with a web page",
  worker_vanished: "A worker has vanished",
  jwks_unread: "A JWK Set cannot be read",
  restart_needed: "A changed setting needs a restart",
  queue_policy: "A policy of the broker overrides a queue",
  registry_source_beyond: "A registry source exceeds its permissions",
  registry_source_changed: "A registry source changed for many clients",
};

/** Troubles that delay no logout. */
export const MILD = new Set(["session_only", "web_page", "worker_vanished", "jwks_unread", "restart_needed", "queue_policy", "registry_source_beyond", "registry_source_changed"]);

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
