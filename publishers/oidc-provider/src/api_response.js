/**
 * Decides from the API's response whether an event is confirmed.
 *
 * Proxies, firewalls and captive portals respond in place of notifier, with any status. A response is notifier's if its body
 * proves it: a 202 by the event's id, an error by the type of its problem document (RFC 9457).
 */
import { PublishFailure } from './publish_failure.js'

/** @typedef {import('./amqp_transport.js').OutgoingEvent} OutgoingEvent */
/** @typedef {{status: number, contentType: string, server?: string | undefined, after?: number | undefined, body: Buffer}} ApiResponse */

export const MAX_BODY_BYTES = 64 * 1024
const PROBLEM_TYPE = 'urn:notifier:problem'
const MAX_PROBLEM_LENGTH = 300
const MAX_EXCERPT_LENGTH = 200

/** notifier refuses this event permanently. */
export class RefusedError extends Error {
  /** @param {OutgoingEvent} event @param {string} message */
  constructor (event, message) {
    super(message)
    this.event = event
  }
}

/** Another server responded to this event. */
export class InterceptedFailure extends PublishFailure {
  /** @param {OutgoingEvent} event @param {string} message */
  constructor (event, message) {
    super('intercepted', message)
    this.event = event
  }
}

/** The error for this response; undefined if it confirms the event. @param {ApiResponse} response @param {OutgoingEvent} event @param {string} token @returns {PublishFailure | RefusedError | undefined} */
export function toError ({ status, contentType, server, after, body }, event, token) {
  const text = body.toString()
  const document = parseObject(text)
  if (status === 202 && document?.id === event.id) return undefined
  if (/^application\/problem\+json\s*(;|$)/i.test(contentType) && document?.type === PROBLEM_TYPE) {
    const problem = `the API answered ${status}: ${toLine(text, MAX_PROBLEM_LENGTH)}`
    if (status === 400 || status === 413 || status === 422) return new RefusedError(event, problem)
    if (status === 401 || status === 403) return new PublishFailure('denied', `${problem}: check the token in secret or secretFile, its scope publish, and the issuer’s publishers`)
    return new PublishFailure('rejected', problem, after)
  }
  const excerpt = repeatsRequest(text, event.id) || repeatsRequest(text, token) ? 'a page that repeats the request' : toLine(text, MAX_EXCERPT_LENGTH) || 'no body'
  const foreign = `the answer is ${status} (${server === undefined ? 'no header Server' : `Server: ${toLine(server, MAX_EXCERPT_LENGTH)}`}): ${excerpt}`
  if (status === 408 || status === 429 || (status >= 500 && status <= 599)) return new PublishFailure('rejected', foreign, after)
  return new InterceptedFailure(event, `${foreign}: this is not notifier’s answer; check url, and proxies before it`)
}

/** @param {string} text @returns {{id?: unknown, type?: unknown} | undefined} */
function parseObject (text) {
  try {
    const document = JSON.parse(text)
    return document !== null && typeof document === 'object' ? document : undefined
  } catch {
    return undefined
  }
}

/** Whether the page contains this text, also escaped. Such a page would put the token, the user or the session into the log. @param {string} text @param {string} part */
function repeatsRequest (text, part) {
  if (!part) return false
  const entities = part.replace(/[^A-Za-z0-9]/g, (each) => `&#${each.charCodeAt(0)};`)
  return [part, JSON.stringify(part).slice(1, -1), part.replaceAll('/', '\\/'), encodeURIComponent(part), encodeURI(part), entities]
    .some((form) => text.toLowerCase().includes(form.toLowerCase()))
}

/** The beginning of a text on one line, so that it cannot forge a log line. @param {string} text @param {number} length */
function toLine (text, length) {
  return text.slice(0, length * 4).replace(/[\p{C}\p{Z}]+/gu, ' ').trim().slice(0, length)
}
