"""Maven builds the package for Keycloak as described in its README, and its unit tests pass."""

import re
import zipfile

import pytest

from publishers.tests.keycloak.plugin import MODULES, SOURCES, plugin_jar, unit_tests_report
from publishers.tests.maven import passed_tests

LOGGERS = (
    "Compatibility", "MassEndings", "Publisher", "PublisherFactory", "keys.PublicKeyFactory", "outbox.Keeper",
    "outbox.Outbox", "outbox.OutboxFolder", "outbox.Writers", "publishing.AmqpTransport", "publishing.LanePublisher",
)  # fmt: skip


@pytest.mark.full
def test_its_unit_tests_pass() -> None:
    """Maven has run them."""
    [core, plugin] = passed_tests(unit_tests_report(), modules=len(MODULES))
    assert core >= 60
    assert plugin >= 15


@pytest.mark.full
def test_the_jar_contains_nothing_that_keycloak_has() -> None:
    """RabbitMQ's client is relocated; Netty, SLF4J, Micrometer and Jackson are Keycloak's."""
    with zipfile.ZipFile(plugin_jar()) as jar:
        classes = [name for name in jar.namelist() if name.endswith(".class")]
        services = [name for name in jar.namelist() if name.startswith("META-INF/services/") and not name.endswith("/")]
        providers = [line for name in services for line in jar.read(name).decode().split()]
    assert [name for name in classes if not name.startswith("dev/notifier/keycloak/")] == []
    assert any(name.startswith("dev/notifier/keycloak/rabbitmq/") for name in classes)
    assert {f"{provider.replace('.', '/')}.class" for provider in providers} <= set(classes)
    assert len(services) >= 6


@pytest.mark.full
def test_the_jar_contains_its_licences() -> None:
    """The notice names the parts of others; `make publishers` adds the text of the licence."""
    with zipfile.ZipFile(plugin_jar()) as jar:
        assert "RabbitMQ" in jar.read("META-INF/NOTICE").decode()


@pytest.mark.full
def test_loggers_keep_their_names() -> None:
    """Users set log levels by them, whatever the classes are called."""
    with zipfile.ZipFile(plugin_jar()) as jar:
        ours = [name for name in jar.namelist() if name.endswith(".class") and "/rabbitmq/" not in name]
        code = b"".join(jar.read(name) for name in ours)
    for name in LOGGERS:
        logger = f"dev.notifier.keycloak.{name}".encode()
        assert len(logger).to_bytes(2) + logger in code, name  # a constant: its length, then its text


def test_the_readme_lists_every_setting_and_its_default() -> None:
    """Its table and the plug-in's own help are the same settings."""
    source = (SOURCES / "src/main/java/dev/notifier/keycloak/SettingsMetadata.java").read_text()
    rows = dict(re.findall(r'new String\[\] \{"(\w+)", ".*?", (?:null|"(.*?)")\}', source))
    readme = (SOURCES / "README.md").read_text()
    table = dict(re.findall(r"^\| `([a-z-]+)` \| (?:`(.*?)`)?[^|]*\|", readme, re.MULTILINE))
    spelled = {re.sub("([A-Z])", lambda found: "-" + found[1].lower(), name): value for name, value in rows.items()}
    assert spelled.items() <= table.items(), spelled.items() - table.items()
