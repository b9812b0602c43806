"""Maven builds the package for Keycloak as described in its README, and its unit tests pass."""

import re
import zipfile

import pytest

from publishers.tests.keycloak.plugin import SOURCES, plugin_jar, unit_tests_report


@pytest.mark.full
def test_its_unit_tests_pass() -> None:
    """Maven has run them."""
    report = unit_tests_report()
    ran = re.findall(r"^.*Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0$", report, re.MULTILINE)
    assert ran, f"not all unit tests pass: {report[-6000:]}"
    assert int(ran[-1]) >= 30, ran


@pytest.mark.full
def test_the_jar_brings_nothing_that_keycloak_has() -> None:
    """The client of RabbitMQ has a separate package in it; Netty, slf4j and Jackson are Keycloak's."""
    with zipfile.ZipFile(plugin_jar()) as jar:
        classes = [name for name in jar.namelist() if name.endswith(".class")]
        services = [name for name in jar.namelist() if name.startswith("META-INF/services/") and not name.endswith("/")]
        providers = [line for name in services for line in jar.read(name).decode().split()]
    assert [name for name in classes if not name.startswith("dev/notifier/keycloak/")] == []
    assert any(name.startswith("dev/notifier/keycloak/rabbitmq/") for name in classes)
    assert {f"{provider.replace('.', '/')}.class" for provider in providers} <= set(classes)
    assert len(services) >= 6


def test_the_readme_lists_every_setting_and_its_default() -> None:
    """Its table and the plug-in's own help are the same settings."""
    source = (SOURCES / "src/main/java/dev/notifier/keycloak/SettingsHelp.java").read_text()
    rows = dict(re.findall(r'new String\[\] \{"(\w+)", ".*?", (?:null|"(.*?)")\}', source))
    readme = (SOURCES / "README.md").read_text()
    table = dict(re.findall(r"^\| `([a-z-]+)` \| (?:`(.*?)`)?[^|]*\|", readme, re.MULTILINE))
    spelled = {re.sub("([A-Z])", lambda found: "-" + found[1].lower(), name): value for name, value in rows.items()}
    assert spelled.items() <= table.items(), spelled.items() - table.items()
