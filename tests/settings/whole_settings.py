"""The type of the settings with the sections of all features."""

from notifier.configuration.configured_feature import settings_model
from notifier.features import FEATURES

SETTINGS = settings_model(FEATURES)
