"""List the features: optional parts of notifier, each in a folder here. No feature imports another.

A feature that others publish through comes before them. The modules `notifier.service` and `notifier.cli` iterate over
the list. No module of the core imports it.
"""

from notifier.feature import Feature
from notifier.features.browsers.browsers_feature import BROWSERS
from notifier.features.channels.channels_feature import CHANNELS
from notifier.features.console.console_feature import CONSOLE
from notifier.features.feed.feed_feature import FEED
from notifier.features.registries.registries_feature import REGISTRIES
from notifier.features.signers.signers_feature import SIGNERS
from notifier.features.sources.sources_feature import SOURCES
from notifier.features.spool.spool_feature import SPOOL
from notifier.features.upstreams.upstreams_feature import UPSTREAMS

FEATURES: tuple[Feature, ...] = (
    SPOOL,
    SOURCES,
    BROWSERS,
    UPSTREAMS,
    FEED,
    REGISTRIES,
    SIGNERS,
    CHANNELS,
    CONSOLE,
)
