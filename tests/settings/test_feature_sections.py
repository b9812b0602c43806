"""A feature declares its sections of the settings by path, and the core needs no line for them."""

from pathlib import Path

import pytest

from notifier.configuration.configured_feature import ConfiguredFeature, settings_model
from notifier.model.errors import ConfigurationError
from notifier.settings.config_file import load_settings, read_part
from notifier.settings.config_schema import config_schema
from notifier.settings.service_settings import Settings
from notifier.settings.values import Section


class QuietSettings(Section):
    """Issuers that have sent no event for long."""

    after: int = 60
    """Seconds."""


HERE = f"{__name__}:QuietSettings"
FEATURE = ConfiguredFeature(name="quiet", sections={"quiet": HERE, "api.quiet": HERE, "sources": HERE})
MODEL = settings_model([FEATURE])


def test_a_section_of_a_feature_is_read_at_its_path() -> None:
    """New in the file or in a section, in place of what the core has there, and by a name for each."""
    environ = {"NOTIFIER_QUIET__AFTER": "5", "NOTIFIER_API__QUIET__AFTER": "6"}
    read = load_settings(None, {**environ, "NOTIFIER_SOURCES": '{"shop": {"after": 8}}'}, MODEL)
    found = [read.section(path, QuietSettings) for path in ("quiet", "api.quiet")]
    found.append(read.sections("sources", QuietSettings)["shop"])
    assert [None if section is None else section.after for section in found] == [5, 6, 8]
    assert isinstance(read, Settings)
    assert load_settings(None, {}, MODEL).section("api.quiet", QuietSettings) is None


def test_a_mistake_in_a_section_of_a_feature_is_named(tmp_path: Path) -> None:
    """As one of the core is; its description is in the schema."""
    path = tmp_path / "n.yaml"
    path.write_text("quiet: {aftr: 5}\nsources: {shop: {after: x}}\n")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, {"NOTIFIER_QUIET__AFTR": "5"}, MODEL)
    paths = [mistake.path for mistake in caught.value.mistakes]
    assert paths == ["NOTIFIER_QUIET__AFTR", "sources.shop.after", "quiet.aftr"]
    schema = config_schema(MODEL)
    assert schema["properties"]["quiet"]["description"] == "Issuers that have sent no event for long."
    assert schema["$defs"]["QuietSettings"]["properties"]["after"]["description"] == "Seconds."


def test_without_its_feature_a_section_is_not_judged() -> None:
    """A command that reads the queue alone reads no other section, and takes the variables of all."""
    environ = {"NOTIFIER_WEB__KEYS_FILE": "web.keys", "NOTIFIER_API__CONSOLE__ENABLED": "false"}
    assert read_part(None, environ, {"queue"}).settings.web is None
    with pytest.raises(ConfigurationError, match="NOTIFIER_WEBB__KEYS_FILE: there is no such setting"):
        read_part(None, {"NOTIFIER_WEBB__KEYS_FILE": "web.keys"}, {"queue"})
