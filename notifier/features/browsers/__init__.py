"""Pages for browsers: front-channel logout, check-session, sign-outs."""
