import amqp from 'amqplib'
import { randomUUID } from 'node:crypto'

const connection = await amqp.connect(process.env.AMQP_URL)
const channel = await connection.createConfirmChannel()
let returned = false
channel.on('return', () => { returned = true })
const event = { id: randomUUID(), iss: 'https://id.example.com', sub: '248289761001', sid: '08a5019c', clients: ['shop'] }
channel.publish('notifier.events', 'session.ended', Buffer.from(JSON.stringify(event)),
                { mandatory: true, persistent: true, contentType: 'application/json' })
await channel.waitForConfirms()
await connection.close()
if (returned) throw new Error('no queue is bound to notifier.events')
