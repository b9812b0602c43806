/**
 * Writes log records, by default as JSON lines. A repeated record is logged at once, and then at most once a minute.
 *
 * A record contains the id of an event, and never a user, a session, a token or a password.
 */

const REPEAT_INTERVAL_MS = 60_000
const MAX_CAUSES = 1_000

/** @type {import('../index.d.ts').Log} */
export function consoleLog (record) {
  const line = JSON.stringify({ time: new Date().toISOString(), source: 'notifier-oidc-provider', ...record })
  if (record.level === 'error') console.error(line)
  else if (record.level === 'warn') console.warn(line)
  else console.info(line)
}

/** Passes records to `write`. Its exceptions are ignored. */
export class Logger {
  /** @param {import('../index.d.ts').Log} write */
  constructor (write) {
    this.write = write
    /** @type {Map<string, {at: number, skipped: number}>} */
    this.logged = new Map()
  }

  /** @param {import('../index.d.ts').LogRecord} record */
  log (record) {
    try { this.write(record) } catch {}
  }

  /**
   * Log a record, but records of the same `cause` at most once in `intervalMs`; the next one contains the number of skipped records.
   * @param {string} cause
   * @param {import('../index.d.ts').LogRecord} record
   */
  limited (cause, record, intervalMs = REPEAT_INTERVAL_MS) {
    const now = performance.now()
    const before = this.logged.get(cause)
    if (before && now - before.at < intervalMs) {
      before.skipped += 1
      return
    }
    this.logged.delete(cause)
    if (this.logged.size >= MAX_CAUSES) this.logged.delete([...this.logged.keys()][0] ?? '')
    this.logged.set(cause, { at: now, skipped: 0 })
    this.log(before?.skipped ? { ...record, left_out: before.skipped } : record)
  }

  /** Forget the causes with this prefix, so that their next records are logged at once. @param {string} prefix */
  reset (prefix) {
    for (const cause of this.logged.keys()) if (cause.startsWith(prefix)) this.logged.delete(cause)
  }
}
