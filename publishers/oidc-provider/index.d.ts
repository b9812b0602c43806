/** What is read and replaced of a provider: `new Provider(…)` of oidc-provider 8.x or 9.x. */
export interface ProviderLike {
  readonly issuer: string
  readonly Session: object
  readonly Client: object
  use (middleware: (ctx: any, next: () => Promise<any>) => any): unknown
  on (event: string, listener: (...values: any[]) => void): unknown
}

/** A public key as a JSON Web Key (RFC 7517). Members that belong to a private key are left out of what is shown. */
export interface PublicJwk {
  kty: string
  kid?: string
  [member: string]: unknown
}

/** Remembers sessions until they run out. */
export interface ExpiryStore {
  /** Remember the session, or replace its remembered end. */
  put (uid: string, session: RememberedSession): void | Promise<void>
  /** Up to `limit` sessions whose `exp` is at `now` or before it. May return the same sessions again until they are removed or put again. */
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

/** Keeps the sessions in Redis: for several processes, and for as many sessions as Redis holds. */
export function redisExpiry (redis: RedisLike, options?: { /** Default: `{notifier-sessions}` */ key?: string }): ExpiryStore

export interface ExpiryOptions {
  /** Default: the memory of this process, kept in the outbox folder too. */
  store?: ExpiryStore
  /** How many sessions the memory holds. Default: 100000 */
  maxSessions?: number
  /** Milliseconds between two looks for sessions that have run out. Default: 10000 */
  every?: number
  /** Whether these events wait in notifier while people who have just signed out are served. Default: true */
  bulk?: boolean
}

export interface OutboxOptions {
  /** The folder of pending events. Each process creates its own sub-folder. */
  folder: string
  /** How many events may wait on the disk. Default: 100000 */
  maxEvents?: number
  /** How many bytes of events may wait on the disk. Default: 268435456 */
  maxBytes?: number
  /** Milliseconds after which an event is set aside. Default: 30 days */
  maxAge?: number
}

export interface TlsOptions {
  /** PEM: authorities to trust instead of those of Node. */
  caFile?: string
  /** PEM: our certificate. */
  certificateFile?: string
  /** PEM: its key. */
  keyFile?: string
}

export interface Limits {
  /** Milliseconds that a sign-out waits at the most. Default: 2000 */
  signOut?: number
  /** Milliseconds without a confirm after which the connection is dropped. Default: 10000 */
  publish?: number
  /** Milliseconds that `close()` goes on publishing. Default: 5000 */
  drain?: number
}

export interface Options {
  /** `amqps://user@host:5671/vhost`, several hosts of one cluster separated by commas; or `https://…`, notifier's API. */
  url: string
  /** The broker's password, or the API's token. */
  secret?: string
  /** A file that contains it, read again at each connection. */
  secretFile?: string
  outbox: OutboxOptions
  tls?: TlsOptions
  /** Default: `notifier.events` */
  exchange?: string
  /** Default: `notifier.bulk` */
  bulkExchange?: string
  limits?: Limits
  /** notifier's public keys, which the provider shows in its JWK Set beside its own. */
  keys?: PublicJwk[] | { keys: PublicJwk[] }
  /** A file with such a JWK Set, looked at again every 10 s. */
  keysFile?: string
  /** Whether events carry each client's URI and algorithm, so that notifier needs no registry. Default: true */
  metadata?: boolean
  /** Whether expired sessions are published. Default: false */
  expiry?: boolean | ExpiryOptions
  /** Default: one line of JSON a record, by `console`. */
  log?: Log
}

export type FailureReason = 'unreachable' | 'denied' | 'timed_out' | 'unroutable' | 'rejected' | 'disconnected' | 'intercepted'

export interface LogRecord {
  level: 'info' | 'warn' | 'error'
  /** What happened, as a word for programs. */
  event: string
  /** What happened, and the way out. */
  message: string
  id?: string
  lane?: 'events' | 'bulk'
  reason?: FailureReason
  [member: string]: unknown
}

export type Log = (record: LogRecord) => void

/** Counters since the start, and the pending events. */
export interface Logouts {
  /** Events handed over. */
  readonly written: number
  /** Events confirmed. */
  readonly published: number
  /** Lost events: no client is notified. */
  readonly lost: number
  /** Files set aside as `.refused`. */
  readonly refused: number
  /** Files set aside as `.expired`. */
  readonly expired: number
  /** Failed tries. */
  readonly failures: Readonly<Record<FailureReason, number>>
  /** Events that wait. */
  readonly waiting: number
  /** Events that wait in memory alone. */
  readonly waitingInMemory: number
  /** Seconds that the oldest of them has waited; 0 if none waits. */
  readonly oldest: number
  /** Publish sessions that end within `work` in the lane of mass logouts. */
  inBulk<T> (work: () => T): T
  /** Publish pending events for at most 5 s, then disconnect. The rest is published after the next start. */
  close (): Promise<void>
}

/** Call it right after `new Provider`, before `callback()` and `listen()`. Throws a `SettingsError`. */
export function publishLogouts (provider: ProviderLike, options: Options): Logouts

/** Lists every mistake in the options. */
export class SettingsError extends Error {
  readonly mistakes: readonly string[]
}
