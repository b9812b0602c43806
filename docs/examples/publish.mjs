import amqp from 'amqplib'
import { randomUUID } from 'node:crypto'

async function publish (url, event) {
  const connection = await amqp.connect(url, { timeout: 5_000 }) // amqps: only the right name, by a CA that Node trusts
  const channel = await connection.createConfirmChannel()
  let returned = false
  channel.on('return', () => { returned = true })
  channel.publish('notifier.events', 'session.ended', Buffer.from(JSON.stringify(event)), {
    mandatory: true, persistent: true, contentType: 'application/json', userId: decodeURIComponent(new URL(url).username)
  })
  await channel.waitForConfirms()
  await connection.close()
  if (returned) throw new Error('no queue is bound to notifier.events')
}

const event = { id: randomUUID(), iss: 'https://id.example.com', sub: '248289761001', sid: '08a5019c', clients: ['shop'] }
const late = new Promise((_resolve, reject) => setTimeout(reject, 5_000, new Error('not confirmed within 5 s')).unref())
await Promise.race([publish(process.env.AMQP_URL, event), late])
