/** A provider, `new Provider(…)` of oidc-provider 8.x or 9.x, with the members that this package uses or replaces. */
export interface ProviderLike {
  readonly issuer: string
  readonly Session: object
  readonly Client: object
  use (middleware: (ctx: any, next: () => Promise<any>) => any): unknown
  on (event: string, listener: (...values: any[]) => void): unknown
}

/** A public key as a JSON Web Key (RFC 7517). Private members are not published. */
export interface PublicJwk {
  kty: string
  kid?: string
  [member: string]: unknown
}

/** Remembers sessions until they expire. */
export interface ExpiryStore {
  /** Remember the session, or replace the remembered one. */
  put (uid: string, session: RememberedSession): void | Promise<void>
  /** Return up to `limit` sessions whose `exp` is `now` or earlier. May return a session again until it is removed or put again. */
  due (now: number, limit: number): RememberedSession[] | Promise<RememberedSession[]>
  /** Forget the session. */
  remove (uid: string): void | Promise<void>
}

/** The data of a session that its event needs after it has expired. Plain JSON. */
export interface RememberedSession {
  uid: string
  /** Seconds since 1970. */
  exp: number
  accountId: string
  /** The session id of each client, by `client_id`. */
  sids: Record<string, string>
}

/** A client of ioredis, or of node-redis from version 4 on. */
export type RedisLike =
  | { call (command: string, ...values: string[]): Promise<unknown> }
  | { sendCommand (values: string[]): Promise<unknown> }

/** Keeps the sessions in Redis, for several processes or more sessions than fit into memory. */
export function redisExpiry (redis: RedisLike, options?: { /** Default: `{notifier-sessions}` */ key?: string }): ExpiryStore

export interface ExpiryOptions {
  /** Default: the memory of this process, also written to the outbox folder. */
  store?: ExpiryStore
  /** The maximum number of sessions in memory. Default: 100000 */
  maxSessions?: number
  /** Milliseconds between two checks for expired sessions. Default: 10000 */
  every?: number
  /** Whether these events use the lane of mass logouts, which notifier serves after user sign-outs. Default: true */
  bulk?: boolean
}

export interface OutboxOptions {
  /** The folder of pending events. Each process creates its own sub-folder. */
  folder: string
  /** The maximum number of pending events on disk. Default: 100000 */
  maxEvents?: number
  /** The maximum bytes of pending events on disk. Default: 268435456 */
  maxBytes?: number
  /** Milliseconds after which an event is set aside. Default: 30 days */
  maxAge?: number
}

export interface TlsOptions {
  /** PEM: certificate authorities to trust instead of Node's. */
  caFile?: string
  /** PEM: the client certificate. */
  certificateFile?: string
  /** PEM: the key of the client certificate. */
  keyFile?: string
}

export interface Limits {
  /** The maximum milliseconds that a sign-out is delayed. Default: 2000 */
  signOut?: number
  /** Milliseconds without a confirm after which the connection is dropped. Default: 10000 */
  publish?: number
  /** Milliseconds for which `close()` continues to publish. Default: 5000 */
  drain?: number
}

export interface Options {
  /** `amqps://user@host:5671/vhost`, several hosts of one cluster separated by commas; or `https://…`, notifier's API. */
  url: string
  /** The broker's password, or the API's token. */
  secret?: string
  /** A file that contains the secret, read again at each connection. */
  secretFile?: string
  outbox: OutboxOptions
  tls?: TlsOptions
  /** Default: `notifier.events` */
  exchange?: string
  /** Default: `notifier.bulk` */
  bulkExchange?: string
  limits?: Limits
  /** notifier's public keys, which the provider publishes in its JWK Set with its own keys. */
  keys?: PublicJwk[] | { keys: PublicJwk[] }
  /** A file with a JWK Set of these keys, checked for changes every 10 s. */
  keysFile?: string
  /** Whether events carry each client's URI and algorithm, so that notifier needs no registry. Default: true */
  metadata?: boolean
  /** Whether expired sessions are published. Default: false */
  expiry?: boolean | ExpiryOptions
  /** Default: one line of JSON for each record, written by `console`. */
  log?: Log
}

export type FailureReason = 'unreachable' | 'denied' | 'timed_out' | 'unroutable' | 'rejected' | 'disconnected' | 'intercepted'

export interface LogRecord {
  level: 'info' | 'warn' | 'error'
  /** The kind of record, for filters. */
  event: string
  /** A description, and the remedy. */
  message: string
  id?: string
  lane?: 'events' | 'bulk'
  reason?: FailureReason
  [member: string]: unknown
}

export type Log = (record: LogRecord) => void

/** Counters since the start, and the pending events. */
export interface Logouts {
  /** Stored events. */
  readonly written: number
  /** Confirmed events. */
  readonly published: number
  /** Lost events: no client is notified. */
  readonly lost: number
  /** Files set aside as `.refused`. */
  readonly refused: number
  /** Files set aside as `.expired`. */
  readonly expired: number
  /** Failed attempts to publish. */
  readonly failures: Readonly<Record<FailureReason, number>>
  /** Pending events. */
  readonly waiting: number
  /** Pending events that are only in memory. */
  readonly waitingInMemory: number
  /** Age of the oldest event that is ready, in seconds; 0 if there is none. */
  readonly oldest: number
  /** Run `work`, and publish the sessions that it ends in the lane of mass logouts. */
  inBulk<T> (work: () => T): T
  /** Publish pending events for at most `limits.drain`, then disconnect. The rest is published after the next start. */
  close (): Promise<void>
}

/** Publish the ended sessions of a provider. Call it right after `new Provider`, before `callback()` and `listen()`. Throws `SettingsError`. */
export function publishLogouts (provider: ProviderLike, options: Options): Logouts

/** The options are invalid. `mistakes` lists every mistake. */
export class SettingsError extends Error {
  readonly mistakes: readonly string[]
}
