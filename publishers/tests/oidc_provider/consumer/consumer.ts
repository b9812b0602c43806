/** What a program in TypeScript may do with the package, at both versions of the library and with both clients of Redis. */
import { Redis } from 'ioredis'
import { Provider } from 'oidc-provider'
import { Provider as Provider8 } from 'oidc-provider-8'
import { createClient } from 'redis'
import { publishLogouts, redisExpiry, SettingsError, type ExpiryStore, type LogRecord, type Logouts, type Options } from 'notifier-oidc-provider'

const options: Options = {
  url: 'amqps://idp@rabbitmq.example.com:5671/',
  outbox: { folder: '/var/lib/idp/notifier' },
  log: ({ level, event, message }: LogRecord) => console.log(level, event, message)
}

try {
  const logouts: Logouts = publishLogouts(new Provider('https://id.example.com'), options)
  const failed: number = Object.values(logouts.failures).reduce((sum, count) => sum + count, 0) + logouts.failures.denied
  const ended: Promise<number> = logouts.inBulk(async () => logouts.waiting + failed)
  await ended
  await logouts.close()
  // @ts-expect-error the counters are for reading
  logouts.lost = 0
} catch (error) {
  if (error instanceof SettingsError) for (const mistake of error.mistakes) console.error(mistake)
}

publishLogouts(new Provider8('https://id.example.com'), { ...options, expiry: { store: redisExpiry(new Redis()) } })

const redis = await createClient().connect()
const store: ExpiryStore = redisExpiry(redis, { key: '{idp}' })
publishLogouts(new Provider('https://id.example.com'), { ...options, expiry: { store, every: 5_000 } })

// @ts-expect-error the folder is required
publishLogouts(new Provider('https://id.example.com'), { url: 'https://notifier.example.com', outbox: {} })
