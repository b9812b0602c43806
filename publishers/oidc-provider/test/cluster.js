/** A primary whose worker writes an event and is killed. */
import cluster from 'node:cluster'
import { OutboxFolder } from '../src/outbox_folder.js'

if (cluster.isPrimary) {
  cluster.fork().once('exit', () => process.send('dead'))
  setInterval(() => {}, 1_000)
} else {
  const place = await OutboxFolder.claim(process.argv[2], 'https://id.example.com')
  await place.write('1-events', '.json', '{}')
  process.kill(process.pid, 'SIGKILL')
}
