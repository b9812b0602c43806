"""notifier delivers OpenID Connect Back-Channel Logout notifications, durably and in isolation from each other."""

__version__ = "0.1.0"
