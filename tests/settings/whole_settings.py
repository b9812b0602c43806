"""The types of the settings with the sections of all features."""

from notifier.configuration.configured_feature import settings_model
from notifier.features import FEATURES
from notifier.settings.input_issues import model_at
from notifier.settings.key_settings import KeySettings
from notifier.settings.registry_settings import RegistrySourceSettings

SETTINGS = settings_model(FEATURES)
_source, _key = model_at(SETTINGS, ("registry", "sources")), model_at(SETTINGS, ("issuers", "keys"))
assert _source is not None
assert issubclass(_source, RegistrySourceSettings)
assert _key is not None
assert issubclass(_key, KeySettings)
SOURCE_SETTINGS: type[RegistrySourceSettings] = _source
KEY_SETTINGS: type[KeySettings] = _key
