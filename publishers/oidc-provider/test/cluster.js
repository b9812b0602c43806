/** A primary whose worker writes an event and is killed. */
import cluster from 'node:cluster'
import { Place } from '../src/place.js'

if (cluster.isPrimary) {
  cluster.fork().once('exit', () => process.send('dead'))
  setInterval(() => {}, 1_000)
} else {
  const place = await Place.claim(process.argv[2], 'https://id.example.com')
  await place.write('1-events', '.json', '{}')
  process.kill(process.pid, 'SIGKILL')
}
