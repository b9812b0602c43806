/**
 * Log records: JSON lines by default. A repeated record is logged at once and then once a minute.
 *
 * A record names an event by its id, and never a user, a session, a token or a password.
 */

const RETRY = 60_000
const CAUSES = 1_000

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
    /** @type {Map<string, {at: number, left: number}>} */
    this.logged = new Map()
  }

  /** @param {import('../index.d.ts').LogRecord} record */
  log (record) {
    try { this.write(record) } catch {}
  }

  /**
   * Log a record, but the same `cause` at most once a `pause`; the next record has the number of skipped records.
   * @param {string} cause
   * @param {import('../index.d.ts').LogRecord} record
   */
  limited (cause, record, pause = RETRY) {
    const now = performance.now()
    const before = this.logged.get(cause)
    if (before && now - before.at < pause) {
      before.left += 1
      return
    }
    this.logged.delete(cause)
    if (this.logged.size >= CAUSES) this.logged.delete([...this.logged.keys()][0] ?? '')
    this.logged.set(cause, { at: now, left: 0 })
    this.log(before?.left ? { ...record, left_out: before.left } : record)
  }

  /** Forget a cause, so that its next record is logged at once. @param {string} prefix */
  reset (prefix) {
    for (const cause of this.logged.keys()) if (cause.startsWith(prefix)) this.logged.delete(cause)
  }
}
