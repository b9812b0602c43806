/** Parses the URL of the broker or of notifier's API. */

/**
 * @typedef {object} Address
 * @property {'amqp' | 'amqps' | 'http' | 'https'} scheme
 * @property {boolean} amqp Whether this is a broker.
 * @property {boolean} secure
 * @property {{host: string, port: number}[]} hosts The hosts of one cluster, tried in turn.
 * @property {string} user
 * @property {string | undefined} password
 * @property {string} vhost
 * @property {string} path The path before `/v1/events`.
 */

const PORTS = { amqp: 5672, amqps: 5671, http: 80, https: 443 }

/** The parsed URL, or the error as text. @param {string} url @returns {Address | string} */
export function parseAddress (url) {
  const parts = /^([a-z]+):\/\/(?:([^@/?#]*)@)?([^@/?#]+)(\/[^?#]*)?$/.exec(url)
  const scheme = /** @type {Address['scheme']} */ (parts?.[1])
  if (!parts || !(scheme in PORTS)) return 'must be amqps://user@host:5671/vhost or https://host, without a query'
  const amqp = scheme.startsWith('amqp')
  const hosts = (parts[3] ?? '').split(',').map((each) => parseHost(each, PORTS[scheme]))
  if (hosts.includes(undefined)) return 'has an invalid host or port'
  const known = /** @type {{host: string, port: number}[]} */ (hosts)
  let user, password, vhost
  try {
    [user, password] = (parts[2] ?? '').split(/:(.*)/s, 2).map(decodeURIComponent)
    vhost = decodeURIComponent((parts[4] ?? '').slice(1)) || '/'
  } catch {
    return 'has an invalid percent-encoding'
  }
  if (amqp && (parts[4] ?? '/').indexOf('/', 1) !== -1) return 'has a second / after the host: write %2f for a / in the name of the virtual host'
  if (!amqp && known.length > 1) return 'must have only one host over HTTP'
  if (!amqp && parts[2] !== undefined) return 'must have no user over HTTP: set the API’s token as secret or secretFile'
  const api = amqp ? null : /\/v1(?:\/events(?:\/.*)?)?$/i.exec((parts[4] ?? '').replace(/\/+$/, ''))
  if (api) return `includes the API’s path: write ${scheme}://${parts[3]}${api.input.slice(0, api.index)}, without ${api[0]}`
  if (amqp && !user) return 'must name the broker’s user, as in amqps://user@host'
  return { scheme, amqp, secure: scheme.endsWith('s'), hosts: known, user: user ?? '', password: password || undefined, vhost, path: amqp ? '' : (parts[4] ?? '').replace(/\/+$/, '') }
}

/** @param {string} text @param {number} otherwise */
function parseHost (text, otherwise) {
  const [, six, name, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = six ?? name
  const number = port === undefined ? otherwise : Number(port)
  return host && number > 0 && number < 65_536 ? { host, port: number } : undefined
}
