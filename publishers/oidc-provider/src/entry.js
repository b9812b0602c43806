/** One event that waits, and how its file is read. */

/** @typedef {import('./event.js').SessionEnded} SessionEnded */
/** @typedef {'events' | 'bulk'} Lane */
/** @typedef {{uid: string}} SessionKey What tells whether the session lives. */
/** @typedef {{lane: Lane, session: SessionKey | null, event: SessionEnded}} Content */

/** @type {Lane[]} */
export const LANES = ['events', 'bulk']
const LONGEST_ID = 255 // bytes, as the broker takes them

export class Entry {
  /** @param {string} stem Its name without a suffix. @param {Lane} lane @param {number} size @param {string} [text] Its content, while it is not surely in a file. */
  constructor (stem, lane, size, text) {
    this.stem = stem
    this.lane = lane
    this.size = size
    this.text = text
    this.onDisk = false
    /** @type {number | undefined} Since when our own process has been ending its session. */
    this.ending = undefined
    /** @type {number | undefined} Since when the store says that its session lives, which nobody is ending any more. */
    this.lived = undefined
    /** @type {'pending' | 'ready' | 'gone'} */
    this.state = 'pending'
    this.since = Number(stem.slice(0, 15)) || Date.now()
  }

  get file () { return this.stem + (this.state === 'ready' ? '.json' : '.pending') }
}

/** The file is no event. */
export class NoEvent extends Error {}

/** What a file says; throws NoEvent. @param {string} text @returns {Content} */
export function contentOf (text) {
  let content
  try { content = JSON.parse(text) } catch { throw new NoEvent('it is no JSON') }
  const event = content?.event
  if (event === null || typeof event !== 'object') throw new NoEvent('it holds no event')
  if (typeof event.id !== 'string' || !event.id || Buffer.byteLength(event.id) > LONGEST_ID) throw new NoEvent('its event has no id of 1 to 255 bytes')
  return content
}
