/**
 * Publishes to notifier's API, one event at a time.
 *
 * Uses node:https, because fetch needs another package to trust further certificate authorities.
 */
import http from 'node:http'
import https from 'node:https'
import { PublishFailure, toConnectFailure } from './publish_failure.js'
import { MAX_BODY_BYTES, RefusedError, toError } from './api_response.js'
import { readSecret, readTlsFiles } from './connection_files.js'

/** @typedef {import('./settings.js').Settings} Settings */
/** @typedef {import('./amqp_transport.js').OutgoingEvent} OutgoingEvent */

const MAX_RETRY_AFTER_MS = 60_000

export class HttpTransport {
  /** @param {Settings} settings @param {'events' | 'bulk'} lane */
  constructor (settings, lane) {
    const { address: { scheme, hosts: [host], path }, limits } = settings
    this.settings = settings
    this.limit = limits.publish
    this.where = { hostname: host?.host, port: host?.port, path: `${path}/v1/events${lane === 'bulk' ? '?lane=bulk' : ''}`, method: 'POST' }
    this.secure = scheme === 'https'
    /** @type {http.Agent | undefined} */
    this.agent = undefined
    this.token = ''
  }

  /**
   * Publish in order; `confirmed` is called for each confirmed event. Throws PublishFailure, or RefusedError for a single event.
   * @param {OutgoingEvent[]} events @param {(event: OutgoingEvent) => void} confirmed
   */
  async publish (events, confirmed) {
    try {
      const agent = this.agent ??= await this.#createAgent()
      for (const event of events) {
        await this.#post(agent, event)
        confirmed(event)
      }
    } catch (error) {
      if (!(error instanceof RefusedError)) this.disconnect()
      throw error
    }
  }

  disconnect () {
    this.agent?.destroy()
    this.agent = undefined
  }

  async #createAgent () {
    this.token = await readSecret(this.settings) ?? ''
    if (!this.secure) return new http.Agent({ keepAlive: true, maxSockets: 1 })
    return new https.Agent({ keepAlive: true, maxSockets: 1, ...await readTlsFiles(this.settings.tls) })
  }

  /** @param {http.Agent} agent @param {OutgoingEvent} event @returns {Promise<void>} */
  async #post (agent, event) {
    const response = await this.#request(agent, event.body).catch((error) => {
      if (error.stale) return this.#request(agent, event.body)
      throw error
    })
    const error = toError(response, event, this.token)
    if (error) throw error
  }

  /** @param {http.Agent} agent @param {Buffer} body @returns {Promise<import('./api_response.js').ApiResponse>} */
  #request (agent, body) {
    const headers = { 'Content-Type': 'application/json', 'Content-Length': body.length, ...(this.token && { Authorization: `Bearer ${this.token}` }) }
    return new Promise((resolve, reject) => {
      const request = (this.secure ? https : http).request({ ...this.where, headers, agent })
      let finish = () => {} // resolves with the part of the body received so far
      const late = setTimeout(() => {
        finish()
        request.destroy(new PublishFailure('timed_out', `the API did not respond within ${this.limit} ms`))
      }, this.limit).unref()
      request.on('socket', (socket) => socket.unref()) // the process may end: the next one publishes the events in files
      request.on('error', (error) => {
        const failure = toFailure(error) // `stale`: the API closed an idle connection, which is not a failure
        reject(Object.assign(failure, { stale: request.reusedSocket && failure.reason === 'disconnected' }))
      })
      request.on('close', () => {
        clearTimeout(late)
        reject(new PublishFailure('disconnected', 'the API closed the connection'))
      })
      request.on('response', (response) => {
        const { statusCode: status = 0, headers: { 'content-type': contentType = '', server, 'retry-after': after } } = response
        /** @type {Buffer[]} */
        const parts = []
        let size = 0
        finish = () => resolve({ status, contentType, server: server?.toString(), after: parseRetryAfter(after), body: Buffer.concat(parts) })
        response.on('error', () => finish()) // a body that is cut or stalls is judged as far as it arrived: a firewall that never completes its page must not block the lane
        response.on('end', () => finish()) // the socket is free for the next request
        response.on('data', (part) => {
          parts.push(part)
          size += part.length
          if (size < MAX_BODY_BYTES) return
          finish()
          request.destroy()
        })
      })
      request.end(body)
    })
  }
}

/** Parse a `Retry-After` header, a number of seconds or a date, to milliseconds. @param {string | undefined} text */
function parseRetryAfter (text) {
  if (text === undefined) return undefined
  const wait = /^\d+$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - Date.now()
  return Number.isNaN(wait) ? undefined : Math.min(Math.max(wait, 0), MAX_RETRY_AFTER_MS)
}

/** @param {Error & {code?: unknown}} error */
function toFailure (error) {
  if (error instanceof PublishFailure) return error
  if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return new PublishFailure('disconnected', 'the API closed the connection')
  return toConnectFailure('the API', String(error.code ?? error.message))
}
