/** A process with an outbox, for tests that kill it: prints a JSON line for what it did, and obeys lines that it reads. */
import { createInterface } from 'node:readline'
import { publishLogouts } from '../src/index.js'
import { provider, session } from './rig.js'

const send = (what) => process.stdout.write(JSON.stringify(what) + '\n')
const { url, folder, expiry } = JSON.parse(process.argv[2] ?? '{}')
const op = provider()
const logouts = publishLogouts(op, { url, outbox: { folder }, expiry, log: (record) => send({ log: record.event }) })
const obey = {
  /** Sign these users in and out. */
  async end (...accounts) { for (const account of accounts) await (await session(op, account, ['shop'])).destroy() },
  /** Die while the session is deleted: before or after it is gone. */
  async die (when) {
    const ended = await session(op, 'alice', ['shop'])
    const { destroy } = op.Session.adapter
    op.Session.adapter.destroy = async function (id) {
      if (when === 'after') await destroy.call(this, id)
      process.kill(process.pid, 'SIGKILL')
    }
    await ended.destroy()
  },
  /** Sign a user in whose session runs out. */
  async last (account, ttl) { await session(op, account, ['shop'], ttl) },
  async close () { await logouts.close() }
}
for await (const line of createInterface(process.stdin)) {
  const [what, ...values] = JSON.parse(line)
  await obey[what](...values)
  send({ done: what, waiting: logouts.waiting })
}
