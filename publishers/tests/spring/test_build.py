"""Maven builds the starter as described in its README, and its tests pass on each line of Spring Boot."""

import json
import re
import zipfile

import pytest

from publishers.tests.maven import passed_tests
from publishers.tests.spring.starter import BOOTS, SOURCES, starter_jar, unit_tests_report

METADATA = SOURCES / "src/main/resources/META-INF/spring-configuration-metadata.json"
pytestmark = pytest.mark.timeout(2400)
README = (SOURCES / "README.md").read_text()


@pytest.mark.full
@pytest.mark.parametrize("boot", BOOTS)
def test_its_tests_pass(boot: str) -> None:
    """Maven has run them, with the shaded jar in real servers."""
    [_core, sample] = passed_tests(unit_tests_report(boot), modules=2)
    assert sample >= 60


@pytest.mark.full
def test_the_jar_contains_nothing_that_an_application_has() -> None:
    """RabbitMQ's client and Jackson 2 are relocated; the rest is the application's."""
    with zipfile.ZipFile(starter_jar()) as jar:
        classes = [name for name in jar.namelist() if name.endswith(".class")]
        assert "RabbitMQ" in jar.read("META-INF/NOTICE").decode()
    assert [name for name in classes if not name.startswith("dev/notifier/spring/")] == []
    for relocated in ("rabbitmq", "jackson", "publisher"):
        assert any(name.startswith(f"dev/notifier/spring/{relocated}/") for name in classes), relocated


def test_the_readme_lists_every_setting_and_its_default() -> None:
    """Its table and the metadata for editors are the same settings."""
    properties = json.loads(METADATA.read_text())["properties"]
    defaults = {each["name"]: str(each.get("defaultValue", "")) for each in properties}
    spelled = {name: value.lower() if value in {"True", "False"} else value for name, value in defaults.items()}
    table = dict(re.findall(r"^\| `((?:notifier|management)\.[a-z.-]+)` \| (?:`(.*?)`)?[^|]*\|", README, re.MULTILINE))
    assert table == spelled
