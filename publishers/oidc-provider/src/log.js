/**
 * Log records: JSON lines by default. What goes on is told at once and then once a minute.
 *
 * A record names an event by its id, and never a user, a session, a token or a password.
 */

const AGAIN = 60_000
const CAUSES = 1_000

/** @type {import('../index.d.ts').Log} */
export function consoleLog (record) {
  const line = JSON.stringify({ time: new Date().toISOString(), source: 'notifier-oidc-provider', ...record })
  if (record.level === 'error') console.error(line)
  else if (record.level === 'warn') console.warn(line)
  else console.info(line)
}

/** Tells records to `write`, which never harms us by throwing. */
export class Logger {
  /** @param {import('../index.d.ts').Log} write */
  constructor (write) {
    this.write = write
    /** @type {Map<string, {at: number, left: number}>} */
    this.told = new Map()
  }

  /** @param {import('../index.d.ts').LogRecord} record */
  tell (record) {
    try { this.write(record) } catch {}
  }

  /**
   * As `tell`, but the same `cause` at most once a `pause`; the next record says how many were left out.
   * @param {string} cause
   * @param {import('../index.d.ts').LogRecord} record
   */
  again (cause, record, pause = AGAIN) {
    const now = performance.now()
    const before = this.told.get(cause)
    if (before && now - before.at < pause) {
      before.left += 1
      return
    }
    this.told.delete(cause)
    if (this.told.size >= CAUSES) this.told.delete([...this.told.keys()][0] ?? '')
    this.told.set(cause, { at: now, left: 0 })
    this.tell(before?.left ? { ...record, left_out: before.left } : record)
  }

  /** Forget a cause, so that its next record is told at once. @param {string} prefix */
  over (prefix) {
    for (const cause of this.told.keys()) if (cause.startsWith(prefix)) this.told.delete(cause)
  }
}
