/** A pending event, and the parser of its file. */

/** @typedef {import('./event_builder.js').SessionEnded} SessionEnded */
/** @typedef {'events' | 'bulk'} Lane */
/** @typedef {{uid: string}} SessionKey The key to look up whether the session exists. */
/** @typedef {{lane: Lane, session: SessionKey | null, event: SessionEnded}} Content */

/** @type {Lane[]} */
export const LANES = ['events', 'bulk']
const MAX_ID_BYTES = 255 // the limit of AMQP's message-id

export class OutboxEntry {
  /** @param {string} stem Its file name without the suffix. @param {Lane} lane @param {number} size @param {string} [text] Its content, until it is durable in a file. */
  constructor (stem, lane, size, text) {
    this.stem = stem
    this.lane = lane
    this.size = size
    this.text = text
    this.onDisk = false
    this.writing = false
    /** @type {string | undefined} Its file name after a write in progress, because it was refused or has expired meanwhile. */
    this.asideFile = undefined
    /** @type {number | undefined} When this process started to delete its session. */
    this.destroyStartedAt = undefined
    /** @type {number | undefined} When the store first returned its session after the sign-out. */
    this.aliveSince = undefined
    /** @type {'pending' | 'ready' | 'gone'} */
    this.state = 'pending'
    this.since = Number(stem.slice(0, 15)) || Date.now()
  }

  get file () { return this.stem + (this.state === 'ready' ? '.json' : '.pending') }
}

/** The file is not a valid event. */
export class InvalidEventError extends Error {}

/** Parse the content of a file; throws InvalidEventError. @param {string} text @returns {Content} */
export function parseContent (text) {
  let content
  try { content = JSON.parse(text) } catch { throw new InvalidEventError('it is not JSON') }
  const event = content?.event
  if (event === null || typeof event !== 'object') throw new InvalidEventError('it holds no event')
  if (typeof event.id !== 'string' || !event.id || Buffer.byteLength(event.id) > MAX_ID_BYTES) throw new InvalidEventError('its event has no id of 1 to 255 bytes')
  return content
}
