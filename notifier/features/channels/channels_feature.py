"""The feature `channels`: clients that accept another message than a logout token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from notifier.configuration.configured_feature import FeaturePart
    from notifier.delivery.ports import Channel, ChannelTools
    from notifier.model.registry import Registry
    from notifier.settings.service_settings import Settings


def _channels(tools: ChannelTools) -> Mapping[str, Channel]:
    from notifier.features.channels.global_token_revocation import GlobalTokenRevocation
    from notifier.features.channels.provider_command import ProviderCommand
    from notifier.features.channels.security_event import SecurityEvent

    return {
        "security_event": SecurityEvent(tools),
        "global_token_revocation": GlobalTokenRevocation(tools),
        "command": ProviderCommand(tools),
    }


def _read(_settings: Settings, registry: Registry, _invalid: frozenset[str]) -> FeaturePart:
    from notifier.configuration.configured_feature import FeaturePart
    from notifier.features.channels.channel_checks import find_shared_audiences, secret_files_of

    return FeaturePart(warnings=find_shared_audiences(registry), secrets=dict(secret_files_of(registry)))


CHANNELS = Feature(
    name="channels",
    client_options="notifier.features.channels.channel_settings:ChannelOptions",
    read=_read,
    channels=_channels,
)
