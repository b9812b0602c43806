/**
 * Publishes to RabbitMQ on a dedicated connection: persistent, `mandatory`, with confirms, and with `userId` set to the
 * connection's user.
 *
 * The connection is destroyed if no confirm arrives within the publish limit. `close()` would wait for an unresponsive broker.
 */
import amqp from 'amqplib'
import { readSecret, readTlsFiles } from './connection_files.js'
import { PublishFailure, toConnectFailure, withTimeout } from './publish_failure.js'

/** @typedef {import('./settings.js').Settings} Settings */
/** @typedef {{id: string, body: Buffer}} OutgoingEvent */

const HEARTBEAT_SECONDS = 10
const CONNECT_TIMEOUT_MS = 5_000

export class AmqpTransport {
  /** @param {Settings} settings @param {string} exchange */
  constructor (settings, exchange) {
    this.settings = settings
    this.exchange = exchange
    this.next = 0
    /** @type {AmqpConnection | undefined} */
    this.connection = undefined
  }

  /**
   * Publish in order; `confirmed` is called for each confirmed event. Throws PublishFailure if an event is not confirmed.
   * @param {OutgoingEvent[]} events @param {(event: OutgoingEvent) => void} confirmed
   */
  async publish (events, confirmed) {
    if (this.connection?.failure) this.disconnect() // the connection closed while idle
    this.connection ??= await this.#connect()
    try {
      await this.connection.publish(events, confirmed)
    } catch (error) {
      this.disconnect()
      throw error
    }
  }

  disconnect () {
    this.connection?.disconnect()
    this.connection = undefined
  }

  async #connect () {
    const { address, limits, tls } = this.settings
    const { host, port } = /** @type {{host: string, port: number}} */ (address.hosts[this.next % address.hosts.length])
    const limit = Math.min(CONNECT_TIMEOUT_MS, limits.publish)
    const password = address.password ?? await readSecret(this.settings)
    const tlsFiles = address.secure ? await readTlsFiles(tls) : {}
    try {
      const connecting = amqp.connect(
        { protocol: address.scheme, hostname: host, port, username: address.user, password: password ?? '', vhost: encodeURIComponent(address.vhost), heartbeat: HEARTBEAT_SECONDS },
        { timeout: limit, noDelay: true, clientProperties: { connection_name: 'notifier-oidc-provider' }, ...tlsFiles }
      )
      const connection = await withTimeout(connecting, limit + 1_000, 'the broker does not respond').catch((error) => {
        connecting.then(destroyConnection, () => {}) // a connection that opens after the timeout
        throw error
      })
      const opened = new AmqpConnection(connection, address.user, this.exchange, limits.publish)
      try {
        await opened.openChannel(limit)
      } catch (error) {
        opened.disconnect()
        throw error
      }
      return opened
    } catch (error) {
      this.next += 1
      throw toFailure(/** @type {Error} */ (error))
    }
  }
}

class AmqpConnection {
  /** @param {import('amqplib').ChannelModel} connection @param {string} user @param {string} exchange @param {number} limit */
  constructor (connection, user, exchange, limit) {
    this.connection = connection
    this.user = user
    this.exchange = exchange
    this.limit = limit
    this.blocked = false
    /** @type {PublishFailure | undefined} */
    this.failure = undefined
    /** @type {Set<string>} */
    this.returned = new Set()
    /** @type {import('amqplib').ConfirmChannel | undefined} */
    this.channel = undefined
    connection.on('error', (error) => this.#onFailure(error)) // without a listener the process would crash
    connection.on('close', () => this.#onFailure(new Error('the connection was closed')))
    connection.on('blocked', () => { this.blocked = true })
    connection.on('unblocked', () => { this.blocked = false })
    unref(connection)
  }

  /** @param {number} limit */
  async openChannel (limit) {
    const channel = await withTimeout(this.connection.createConfirmChannel(), limit, 'the broker does not respond')
    channel.on('error', (error) => this.#onFailure(error))
    channel.on('close', () => this.#onFailure(new Error('the channel was closed')))
    channel.on('return', ({ properties }) => this.returned.add(properties.messageId)) // arrives before the confirm
    this.channel = channel
  }

  /** @param {OutgoingEvent[]} events @param {(event: OutgoingEvent) => void} confirmed */
  async publish (events, confirmed) {
    if (this.failure) throw this.failure
    /** @type {NodeJS.Timeout | undefined} */
    let timer
    /** @type {Promise<never>} */
    const timeout = new Promise((_resolve, reject) => {
      timer = setTimeout(() => reject(new PublishFailure('timed_out', this.blocked
        ? 'the broker blocks publishers because of a memory or disk alarm'
        : `no confirm arrived for ${this.limit} ms: the broker or the network is unresponsive`)), this.limit).unref()
    })
    try {
      const all = Promise.all(events.map((event) => this.#publishOne(event).then((failure) => {
        timer?.refresh()
        if (!failure) confirmed(event)
        return failure
      })))
      const failure = (await Promise.race([all, timeout])).find((each) => each !== undefined)
      if (failure) throw this.failure ?? failure
    } finally {
      clearTimeout(timer)
    }
  }

  /** @param {OutgoingEvent} event @returns {Promise<PublishFailure | undefined>} */
  #publishOne ({ id, body }) {
    return new Promise((resolve) => {
      try {
        this.channel?.publish(this.exchange, 'session.ended', body, {
          persistent: true, mandatory: true, messageId: id, userId: this.user, contentType: 'application/json'
        }, (error) => {
          if (this.returned.delete(id)) resolve(new PublishFailure('unroutable', `no queue is bound to the exchange ${this.exchange}: start notifier once, or \`notifier topology declare\``))
          else if (error) resolve(this.failure ?? new PublishFailure('rejected', 'the broker rejected the event: a queue limit is reached'))
          else resolve(undefined)
        })
      } catch (error) {
        resolve(this.failure ?? toFailure(/** @type {Error} */ (error)))
      }
    })
  }

  /** @param {Error} error */
  #onFailure (error) {
    this.failure ??= toFailure(error, this.exchange)
  }

  disconnect () {
    destroyConnection(this.connection)
  }
}

/** Destroy the socket with an error, so that amqplib stops its heartbeats. @param {import('amqplib').ChannelModel} connection */
function destroyConnection (connection) {
  connection.on('error', () => {})
  const { stream } = /** @type {any} */ (connection.connection)
  stream?.destroy(new Error('the connection was dropped'))
}

/** Let the process end while the connection is open: the next process publishes the events in files. @param {import('amqplib').ChannelModel} connection */
function unref (connection) {
  const { stream, heartbeater } = /** @type {any} */ (connection.connection)
  stream?.unref?.()
  heartbeater?.sendTimer?.unref?.()
  heartbeater?.recvTimer?.unref?.()
}

/** @param {Error & {code?: unknown}} error */
function toFailure (error, exchange = '') {
  if (error instanceof PublishFailure) return error
  const sent = /\b(\d{3}) \(([A-Z-]+)\)/.exec(error.message)
  const code = Number(sent?.[1] ?? error.code)
  if (code === 404) return new PublishFailure('unroutable', `there is no exchange ${exchange} in this virtual host: start notifier once, or \`notifier topology declare\``)
  if (code === 403) return new PublishFailure('denied', 'the broker refuses the user: check its password, and its permission to write to the exchange')
  if (code === 530) return new PublishFailure('denied', 'the virtual host does not exist, or the user has no access to it')
  if (sent) return new PublishFailure('rejected', `the broker answered ${sent[0]}`)
  if (typeof error.code === 'string') return toConnectFailure('the broker', error.code)
  if (/TIMEDOUT/.test(error.message)) return new PublishFailure('timed_out', 'the broker does not respond')
  return new PublishFailure('disconnected', `the connection was lost: ${error.message}`)
}
