"""What browsers and upstream providers call, each through the proxy of the identity server's own origin."""
