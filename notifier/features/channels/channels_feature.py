"""The feature `channels`: clients that accept another message than a logout token."""

from notifier.feature import Feature, late

CHANNELS = Feature(
    name="channels",
    client_options="notifier.features.channels.channel_settings:ChannelOptions",
    read=late("notifier.features.channels.channel_checks:read_channels"),
    channels={
        "security_event": late("notifier.features.channels.security_event:SecurityEvent"),
        "global_token_revocation": late("notifier.features.channels.global_token_revocation:GlobalTokenRevocation"),
        "command": late("notifier.features.channels.provider_command:ProviderCommand"),
    },
)
