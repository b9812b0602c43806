"""Test the service's file: the documented sample, the defaults, and environment variables."""

import json
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import SecretStr

from notifier.configuration.clients.clients_file import load_registry
from notifier.model.client import Algorithm, SubjectMode
from notifier.settings.config_file import examine_settings, load_settings, read_credentials, read_sections
from notifier.settings.document_files import read_document
from notifier.settings.subject_key import read_subject_key
from notifier.settings.values import Listen
from tests.settings.config_sample import NAMED, mistakes, sample, write


class TestTheSample:
    def test_loads_as_printed(self, tmp_path: Path) -> None:
        """The documented configuration is accepted unchanged, with all its files."""
        files: set[Path] = set()
        settings = examine_settings(sample(tmp_path), {}, files).settings
        issuer = settings.issuers["https://id.example.com"]
        assert settings.queue.url == ("amqps://localhost:5672/",)  # tls is given
        assert read_credentials(settings.queue) == ("notifier", "text of secrets/amqp")
        assert read_subject_key(settings) == "text of secrets/log"
        assert settings.api is not None
        assert settings.api.listen == Listen("127.0.0.1", 8080)
        assert issuer.keys[0].file == tmp_path / "keys/2026.pem"
        assert issuer.keys[0].not_before is not None
        assert issuer.keys[0].not_before.timestamp() == 1_767_225_600
        assert issuer.publishers == frozenset({"idp"})
        assert issuer.event_types is None
        assert files == {tmp_path / name for name in (*NAMED, "clients.yaml", "tokens.yaml", "notifier.yaml")}

    def test_its_clients_load_as_printed(self, tmp_path: Path) -> None:
        """Settings of the client override its preset and the defaults; the query is kept byte for byte (B4)."""
        registry = load_registry(load_settings(sample(tmp_path), {}))
        client = registry.clients_of("https://id.example.com")["shop"]
        assert client.backchannel_logout_uri == "https://shop.example.com/backchannel-logout?tenant=1"
        assert client.backchannel_logout_session_required
        assert (client.token.alg, client.token.typ, client.token.lifetime) == (Algorithm.ES256, "logout+jwt", 120.0)
        assert client.token.subject is SubjectMode.SID
        assert (client.max_concurrent, client.timeout) == (8, 3.0)
        assert registry.issuers["https://id.example.com"].publishers == frozenset({"idp"})

    def test_its_values_are_the_defaults(self, tmp_path: Path) -> None:
        """The sample's values for delivery, egress, metrics and the ops listener are the defaults."""
        settings = load_settings(sample(tmp_path), {})
        defaults = load_settings(None, {})
        for name in ("delivery", "egress", "metrics", "outcomes", "shutdown_grace", "ops"):
            assert getattr(settings, name) == getattr(defaults, name)
        assert settings.queue.prefetch == defaults.queue.prefetch

    def test_json_equals_yaml(self, tmp_path: Path) -> None:
        """A JSON file with the same content yields the same settings."""
        yaml = sample(tmp_path)
        document = read_document(yaml)
        same = write(tmp_path, json.dumps(document, default=lambda moment: moment.isoformat()), "notifier.json")
        assert load_settings(same, {}) == load_settings(yaml, {})


class TestDefaults:
    def test_api_only_when_given(self, tmp_path: Path) -> None:
        """An empty `api` opens a listener on loopback; null means none."""
        api = load_settings(write(tmp_path, "api: {}"), {}).api
        assert api is not None
        assert str(api.listen) == "127.0.0.1:8080"
        assert load_settings(write(tmp_path, "api:\n"), {}).api is None

    def test_an_empty_section(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A section with commented-out members only is absent; so is an empty file."""
        monkeypatch.chdir(tmp_path)
        assert load_settings(write(tmp_path, "queue:\n  # url: amqp://x\ndelivery:\n"), {}) == load_settings(None, {})
        assert load_settings(write(tmp_path, ""), {}) == load_settings(None, {})

    def test_a_bare_off(self, tmp_path: Path) -> None:
        """A bare `off` is false in YAML, and is accepted."""
        assert load_settings(write(tmp_path, "outcomes: off"), {}).outcomes == "off"


class TestEnvironment:
    def test_every_kind_of_value(self, tmp_path: Path) -> None:
        """Numbers, booleans, durations, lists and mappings can be set, and override the file, member by member."""
        path = write(tmp_path, "queue: {url: 'amqp://a', prefix: mine}\ndelivery: {timeout: 3s, retry: {base: 1s}}")
        settings = load_settings(
            path,
            {
                "NOTIFIER_QUEUE__URL": '["amqp://b", "amqp://c"]',
                "NOTIFIER_QUEUE__PASSWORD": "[not json",
                "NOTIFIER_QUEUE__USERNAME": "12345",
                "NOTIFIER_DELIVERY__MAX_IN_FLIGHT": "7",
                "NOTIFIER_DELIVERY__RETRY__MAX_DELAY": "2m",
                "NOTIFIER_EGRESS": '{"allow": ["10.0.0.0/8"]}',
                "NOTIFIER_EGRESS__ALLOW_HTTP": "true",
                "NOTIFIER_API__LISTEN": "127.0.0.1:0",
                "NOTIFIER_OPS__LISTEN": "[::1]:9465",
                "NOTIFIER_ISSUERS": json.dumps({"https://id.example.com": {"keys": [{"file": "notifier.yaml"}]}}),
                "PATH": "/bin",
            },
        )
        assert settings.queue.url == ("amqp://b", "amqp://c")
        assert (settings.queue.prefix, settings.queue.username) == ("mine", "12345")
        assert settings.queue.password == SecretStr("[not json")
        assert (settings.delivery.timeout, settings.delivery.max_in_flight) == (3.0, 7)
        assert (settings.delivery.retry.base, settings.delivery.retry.max_delay) == (1.0, 120.0)
        assert settings.egress.allow == (ip_network("10.0.0.0/8"),)
        assert settings.egress.allow_http
        assert settings.api is not None
        assert settings.api.listen.port == 0
        assert str(settings.ops.listen) == "[::1]:9465"
        assert list(settings.issuers) == ["https://id.example.com"]

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("NOTIFIER_TRACING__SAMPLE", "is gone: the variable OTEL_EXPORTER_OTLP_ENDPOINT names the collector"),
        ],
    )
    def test_removed_setting(self, name: str, expected: str) -> None:
        """The text has the replacement, and suggests no similar name."""
        assert mistakes(None, {name: "1"})[name].startswith(expected)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("NOTIFIER_QUEUE_URL", "did you mean NOTIFIER_QUEUE__URL?"),
            ("NOTIFIER_QUEUE__URLL", "did you mean NOTIFIER_QUEUE__URL?"),
            ("NOTIFIER_queue__url", "did you mean NOTIFIER_QUEUE__URL?"),
            ("NOTIFIER_SHUTDOWN", "did you mean NOTIFIER_SHUTDOWN_GRACE?"),
            ("NOTIFIER_X", "`notifier schema config` lists them"),
        ],
    )
    def test_a_misspelt_name(self, name: str, expected: str) -> None:
        """An unknown variable is an error with the nearest name."""
        assert mistakes(None, {name: "5s"}) == {name: f"there is no such setting; {expected}"}

    def test_a_wrong_value(self) -> None:
        """An invalid value has the path of its setting, and broken JSON the variable."""
        assert list(mistakes(None, {"NOTIFIER_DELIVERY__TIMEOUT": "5"})) == ["delivery.timeout"]
        assert list(mistakes(None, {"NOTIFIER_EGRESS__ALLOW": "[10.0.0.0/8"})) == ["NOTIFIER_EGRESS__ALLOW"]

    def test_foreign_variables_are_ignored(self) -> None:
        """Variables of the tests, and those of Kubernetes for services called notifier…, are ignored."""
        environ = {
            "NOTIFIER_CONFIG": "/etc/notifier.yaml", "NOTIFIER_TEST_AMQP_URL": "amqp://x",
            "NOTIFIER_SERVICE_HOST": "10.0.0.1", "NOTIFIER_SERVICE_PORT_API": "8080",
            "NOTIFIER_PORT": "tcp://10.0.0.1:8080", "NOTIFIER_PORT_8080_TCP_ADDR": "10.0.0.1",
            "NOTIFIER_OPS_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        }  # fmt: skip
        assert load_settings(None, environ) == load_settings(None, {})

    def test_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is resolved from the folder of its file, and in a variable from the working directory."""
        here, there = tmp_path / "here", tmp_path / "there"
        here.mkdir()
        there.mkdir()
        monkeypatch.chdir(here)
        (here / "secret").write_text("of the environment")
        (there / "secret").write_text("of the file")
        path = write(there, "queue: {url: 'amqp://h', password_file: secret}")
        outright = {"NOTIFIER_QUEUE__PASSWORD": "outright"}
        assert read_credentials(load_settings(path, {}).queue)[1] == "of the file"
        as_file = {"NOTIFIER_QUEUE__PASSWORD_FILE": "secret"}
        assert read_credentials(load_settings(path, as_file).queue)[1] == "of the environment"
        assert read_credentials(load_settings(path, outright).queue)[1] == "outright"
        database = write(there, "queue: {url: 'sqlite:a.db'}")
        assert load_settings(database, {}).queue.sqlite_file == there / "a.db"
        assert load_settings(database, {"NOTIFIER_QUEUE__URL": "sqlite:b.db"}).queue.sqlite_file == here / "b.db"


@pytest.mark.parametrize("text", ["log: {level: info}", "queue:", "queue: {url: }", "queue: {url: null, prefix: a}"])
def test_the_queue_s_file_is_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """In any working directory, and also if the URL is null."""
    path = tmp_path / "etc" / "notifier.yaml"
    path.parent.mkdir()
    path.write_text(text)
    monkeypatch.chdir(tmp_path)
    beside, here = path.parent / "notifier.db", tmp_path / "notifier.db"
    assert read_sections(Path("etc/notifier.yaml"), {}, {"queue"}).settings.queue.sqlite_file == beside
    assert load_settings(path, {}).queue.sqlite_file == beside
    assert load_settings(path, {"NOTIFIER_QUEUE": '{"url": null}'}).queue.sqlite_file == beside
    assert load_settings(None, {}).queue.sqlite_file == here


def test_a_file_of_clients_is_examined_only_when_settings_are_read(tmp_path: Path) -> None:
    """Later nothing depends on it: its mount may be dead, or somebody may be replacing the file."""
    (tmp_path / "clients.yaml").write_text("[]")
    registry = load_settings(write(tmp_path, "registry: {file: clients.yaml}"), {}).registry
    (tmp_path / "clients.yaml").unlink()
    [source] = registry.all_sources
    assert (source.file, source.source_name, source.every) == (tmp_path / "clients.yaml", "file", 60)
