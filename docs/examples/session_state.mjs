import { createHash, randomBytes } from 'node:crypto'

// The `session_state` of an authentication response (Session Management 1.0 §2).
export function sessionState (clientId, redirectUri, browserState, salt = randomBytes(16).toString('hex')) {
  const text = [clientId, new URL(redirectUri).origin, browserState, salt].join(' ')
  return `${createHash('sha256').update(text).digest('hex')}.${salt}`
}
