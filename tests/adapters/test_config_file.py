"""The service's file, the environment over it, and what an operator is told of every mistake at once."""

import json
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path

import jsonschema
import pytest
from pydantic import SecretStr

from notifier.adapters.config_file import (
    load_settings,
    missing_to_run,
    read_credentials,
    read_settings,
    read_subject_key,
)
from notifier.adapters.config_schema import config_schema
from notifier.adapters.documents import read_document
from notifier.adapters.registry_file import load_registry
from notifier.adapters.tokens_file import load_tokens
from notifier.domain.client import Algorithm, Client, SubjectMode
from notifier.domain.errors import ConfigurationError, Mistake
from notifier.settings import Listen, Settings

SAMPLE = """
queue:                                       # or {url: "sqlite:notifier.db"}
  url: "amqp://localhost:5672/"              # or a list of hosts of one cluster
  username: notifier                         # here or in the URL; read again at each reconnect
  password_file: secrets/amqp
  tls: {ca_file: ca.pem, cert_file: c.pem, key_file: k.pem}
  prefix: notifier
  topology: declare                          # or verify
  prefetch: {events: 512, bulk: 64, retries: 256}
ops:     {listen: "127.0.0.1:9464"}          # /livez /readyz /metrics; nothing secret
api:     {listen: "127.0.0.1:8080", tokens_file: tokens.yaml, tls: {cert_file: t.pem, key_file: t.key}}
issuers:
  "https://id.example.com":
    keys: [{file: keys/2026.pem, not_before: 2026-01-01T00:00:00Z}]
    jwks_uri: https://id.example.com/jwks    # polled: is our key still published?
    publishers: [idp]                        # left out: anyone who may publish
delivery: {timeout: 5s, slot_wait: 1s, max_in_flight: 512, max_age: 24h, sub_only_max_age: 10m, max_paused: 7d,
           retry: {base: 2s, factor: 3, max_delay: 1h, jitter: 0.25},
           circuit: {failures: 10, failure_rate: 0.5, window: 30s, open_for: 30s}}
egress:  {allow: [], deny: [], allow_http: false}
registry: {file: clients.yaml, inline: allow, grace: 5m}
log:     {level: info, format: auto, subject: hash, subject_key_file: secrets/log}
metrics: {max_clients: 500}
outcomes: "off"                              # failures, all
shutdown_grace: 20s
"""
CLIENTS = """
- client_id: shop
  issuer: https://id.example.com          # or a list, or "*"; may be left out where there is only one issuer
  backchannel_logout_uri: https://shop.example.com/backchannel-logout?tenant=1
  backchannel_logout_session_required: true
  id_token_signed_response_alg: ES256
  notifier: {preset: spring, typ: logout+jwt, subject: sid, lifetime: 120s, max_concurrent: 8, timeout: 3s}
"""
NAMED = ("secrets/amqp", "ca.pem", "c.pem", "k.pem", "t.pem", "t.key", "keys/2026.pem", "secrets/log")


def sample(folder: Path) -> Path:
    """The sample with every file that it names."""
    for name in NAMED:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"text of {name}\n")
    (folder / "clients.yaml").write_text(CLIENTS)
    (folder / "tokens.yaml").write_text("- {name: idp, token: correct-horse, scopes: [publish, read]}\n")
    return write(folder, SAMPLE)


def write(folder: Path, text: str, name: str = "notifier.yaml") -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text)
    return path


def mistakes(path: Path | None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What is wrong, by path."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, environ or {})
    return {mistake.path: mistake.text for mistake in caught.value.mistakes}


class TestTheSample:
    def test_loads_as_printed(self, tmp_path: Path) -> None:
        """The configuration that the documentation shows is taken as it stands, with all the files it names."""
        read = read_settings(sample(tmp_path), {})
        settings = read.settings
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
        assert read.files == {tmp_path / name for name in (*NAMED, "clients.yaml", "tokens.yaml", "notifier.yaml")}
        assert missing_to_run(settings) == []

    def test_its_clients_load_as_printed(self, tmp_path: Path) -> None:
        """What a client sets itself wins over its preset and the defaults; the query is kept byte for byte (B4)."""
        registry = load_registry(load_settings(sample(tmp_path), {}))
        client = registry.clients_of("https://id.example.com")["shop"]
        assert client.backchannel_logout_uri == "https://shop.example.com/backchannel-logout?tenant=1"
        assert client.backchannel_logout_session_required
        assert (client.token.alg, client.token.typ, client.token.lifetime) == (Algorithm.ES256, "logout+jwt", 120.0)
        assert client.token.subject is SubjectMode.SID
        assert (client.max_concurrent, client.timeout) == (8, 3.0)
        assert registry.issuers["https://id.example.com"].publishers == frozenset({"idp"})

    def test_its_values_are_the_defaults(self, tmp_path: Path) -> None:
        """What the sample shows for delivery, egress, log, metrics and the listener of ops is what one gets without."""
        settings = load_settings(sample(tmp_path), {})
        defaults = load_settings(None, {})
        for name in ("delivery", "egress", "metrics", "outcomes", "shutdown_grace", "ops"):
            assert getattr(settings, name) == getattr(defaults, name)
        assert settings.queue.prefetch == defaults.queue.prefetch

    def test_json_says_the_same(self, tmp_path: Path) -> None:
        """A JSON file with the same content makes the same settings."""
        yaml = sample(tmp_path)
        document = read_document(yaml)
        same = write(tmp_path, json.dumps(document, default=lambda moment: moment.isoformat()), "notifier.json")
        assert load_settings(same, {}) == load_settings(yaml, {})


class TestDefaults:
    def test_no_file_at_all(self) -> None:
        """Without any configuration the embedded queue is used, and there is no API listener."""
        settings = load_settings(None, {})
        assert settings.queue.sqlite_file == Path("notifier.db")
        assert settings.api is None
        assert settings.queue.max_event == 131_072
        (mistake,) = missing_to_run(settings)
        assert str(mistake).startswith("issuers: at least one is needed")

    def test_the_template_of_a_client(self) -> None:
        """The service's defaults are those of the domain's types."""
        assert Settings().template() == Client(iss="", client_id="", backchannel_logout_uri=None, registered=False)

    def test_api_only_when_given(self, tmp_path: Path) -> None:
        """An empty `api` opens a listener on loopback; a null one is as none."""
        api = load_settings(write(tmp_path, "api: {}"), {}).api
        assert api is not None
        assert str(api.listen) == "127.0.0.1:8080"
        assert load_settings(write(tmp_path, "api:\n"), {}).api is None

    def test_an_empty_section(self, tmp_path: Path) -> None:
        """A section whose members are all commented out is as if it were not there; so is an empty file."""
        assert load_settings(write(tmp_path, "queue:\n  # url: amqp://x\ndelivery:\n"), {}) == load_settings(None, {})
        assert load_settings(write(tmp_path, ""), {}) == load_settings(None, {})

    def test_a_bare_off(self, tmp_path: Path) -> None:
        """A bare `off` is false in YAML, and is understood."""
        assert load_settings(write(tmp_path, "outcomes: off"), {}).outcomes == "off"


class TestMistakes:
    def test_all_at_once(self, tmp_path: Path) -> None:
        """Every mistake of a file and of the environment is told together, each with the path of its key."""
        path = write(
            tmp_path,
            """
queue: {urll: "amqp://x", prefetch: {events: 0}, max_event: much}
issuers:
  "https://id.example.com": {keys: [{file: none.pem}], publisher: [a]}
  "id.example.com": {keys: []}
delivery: {timeout: 5, retry: {base: soon, factor: 0.5, jitter: 1}}
egress: {allow: [10.0.0.1/8]}
log: {level: loud}
outcomes: failures
shutdwn_grace: 20s
""",
        )
        found = mistakes(path, {"NOTIFIER_QUEU__URL": "amqp://x"})
        assert found.keys() == {
            "NOTIFIER_QUEU__URL",
            "queue.urll",
            "queue.prefetch.events",
            "queue.max_event",
            'issuers["https://id.example.com"].keys[0].file',
            'issuers["https://id.example.com"].publisher',
            'issuers["id.example.com"]',
            'issuers["id.example.com"].keys',
            "delivery.timeout",
            "delivery.retry.base",
            "delivery.retry.factor",
            "delivery.retry.jitter",
            "egress.allow[0]",
            "log.level",
            "outcomes",
            "shutdwn_grace",
        }
        assert found["NOTIFIER_QUEU__URL"] == "there is no such setting; did you mean NOTIFIER_QUEUE__URL?"
        assert found["queue.urll"] == "there is no such key; did you mean url?"
        assert found["shutdwn_grace"] == "there is no such key; did you mean shutdown_grace?"
        assert found['issuers["https://id.example.com"].publisher'] == "there is no such key; did you mean publishers?"
        assert found['issuers["https://id.example.com"].keys[0].file'] == f"there is no file {tmp_path}/none.pem"
        assert found["delivery.timeout"] == "5 has no unit: write 5s if seconds are meant (or ms, m, h, d)"
        assert found["delivery.retry.base"].startswith("is no duration: write a number and a unit")
        assert found["log.level"] == "must be 'debug', 'info', 'warning' or 'error'"
        assert "not in this version" in found["outcomes"]
        assert "host bits" in found["egress.allow[0]"]

    @pytest.mark.parametrize(
        ("text", "path", "says"),
        [
            ("queue: [1", "notifier.yaml", "line 2, column 1: did not find expected ',' or ']'"),
            ("queue: {}\nqueue: {}", "notifier.yaml", "line 2, column 1: the key 'queue' is there twice"),
            ("queue: {url: a, url: b}", "notifier.yaml", "line 1, column 17: the key 'url' is there twice"),
            ("- queue", "notifier.yaml", "must be a mapping"),
            ("a: 1\n---\nb: 2", "notifier.yaml", "line 2, column 1: a second document"),
            ("a: *nobody", "notifier.yaml", "nothing before this is marked"),
            ("a: \x07", "notifier.yaml", "control characters"),
            ("? {a: b}\n: c", "notifier.yaml", "cannot be a key"),
            ("shutdown_grace: 2026-99-99", "notifier.yaml", "put it in quotes"),
            ("shutdown_grace: !!python/object:os.x 1", "notifier.yaml", "cannot be read"),
            ("[" * 5000, "notifier.yaml", "nested too deeply"),
            ("1: 2", "[1]", "keys must be texts"),
            ("queue: none", "queue", "must be a mapping"),
            ("queue: {url: 5}", "queue.url", "must be a list"),
            ("queue: {username: 5}", "queue.username", "put it in quotes"),
            ("queue: {url: 'http://x'}", "queue.url", "must be sqlite:PATH, amqp://HOST"),
            ("queue: {url: 'sqlite:'}", "queue.url", "must be sqlite:PATH"),
            ("queue: {url: 'amqp://'}", "queue.url", "must have a host"),
            ("queue: {url: 'amqp://h:99999'}", "queue.url", "must have a host, and a port"),
            ("queue: {url: []}", "queue.url", "must name at least one"),
            ("queue: {url: ['amqp://a', 'amqps://b']}", "queue.url", "all amqp or all amqps"),
            ("queue: {url: ['sqlite:a', 'sqlite:b']}", "queue.url", "must be sqlite:PATH"),
            ("queue: {username: u}", "queue", "cannot be used with sqlite"),
            ("queue: {url: 'amqp://u:p@h', username: u}", "queue", "given in url and in username"),
            ("queue: {url: 'amqp://u:p@h', password: q}", "queue", "given in url and beside it"),
            ("queue: {tls: {ca_file: notifier.yaml}}", "queue", "cannot be used with sqlite"),
            ("queue: {url: 'amqps://h', tls: {key_file: notifier.yaml}}", "queue.tls", "needs cert_file"),
            ("queue: {url: 'amqp://h', password: q, password_file: notifier.yaml}", "queue", "both given"),
            ("queue: {url: 'amqp://h', password_file: nowhere}", "queue.password_file", "there is no file"),
            ("queue: {prefix: 'a b'}", "queue.prefix", "must match"),
            ("queue: {topology: create}", "queue.topology", "must be 'declare' or 'verify'"),
            ("queue: {max_event: 0}", "queue.max_event", "must be greater than 0"),
            ("queue: {prefetch: {bulk: 70000}}", "queue.prefetch.bulk", "must be less than or equal to 2000"),
            ("ops: {listen: ':9464'}", "ops.listen", "must be an address and a port"),
            ("ops: {listen: 'localhost:70000'}", "ops.listen", "must be an address and a port"),
            ("ops: {listen: 9464}", "ops.listen", "must be an address and a port"),
            ("api: {listen: '0.0.0.0:8080'}", "api", "tokens_file is required"),
            ("api: {listen: '[::]:8080'}", "api", "tokens_file is required"),
            ("api: {listen: 'id.internal:8080'}", "api", "tokens_file is required"),
            ("api: {tls: {cert_file: notifier.yaml}}", "api.tls.key_file", "is required"),
            ("api: {listen: '127.0.0.1:9464'}", "", "each needs its own"),
            ("issuers: {'https://a?b': {keys: [{file: notifier.yaml}]}}", 'issuers["https://a?b"]', "neither a query"),
            ("issuers: {'https://a': {}}", 'issuers["https://a"].keys', "is required"),
            (
                "issuers: {'https://a': {keys: [{file: notifier.yaml, not_before: 2026-01-01T00:00:00}]}}",
                'issuers["https://a"].keys[0].not_before',
                "must have timezone info",
            ),
            (
                "issuers: {'https://a': {keys: [{file: notifier.yaml}], jwks_uri: jwks}}",
                'issuers["https://a"].jwks_uri',
                "must be an absolute URL",
            ),
            ("delivery: {timeout: 0}", "delivery.timeout", "must be longer than 0s"),
            ("delivery: {timeout: 11m}", "delivery.timeout", "must be at most 10m"),
            ("delivery: {timeout: 9m, slot_wait: 1m}", "delivery", "together are 10m; they must be less than 10m"),
            ("delivery: {max_in_flight: 0}", "delivery.max_in_flight", "must be greater than or equal to 1"),
            ("delivery: {retry: {base: 2h}}", "delivery", "must not be longer than retry.max_delay"),
            ("delivery: {circuit: {failure_rate: 2}}", "delivery.circuit.failure_rate", "less than or equal to 1"),
            ("delivery: {circuit: {open_for: 1h}}", "delivery.circuit.open_for", "at most 15m"),
            ("egress: {allow: 10.0.0.0/8}", "egress.allow", "must be a list"),
            ("registry: {file: none.yaml}", "registry.file", "there is no file"),
            ("registry: {inline: refuse}", "registry.inline", "must be 'allow' or 'deny'"),
            ("log: {subject_key: a, subject_key_file: notifier.yaml}", "log", "both given"),
            ("outcomes: all", "outcomes", 'only "off" is'),
            ("shutdown_grace: -1s", "shutdown_grace", "is no duration"),
            ("colour: red", "colour", "there is no such key; there are queue, ops, api"),
        ],
    )
    def test_one(self, tmp_path: Path, text: str, path: str, says: str) -> None:
        """Each mistake is told by the path of its key, with what would be right."""
        found = mistakes(write(tmp_path, text))
        assert list(found) == [path]
        assert says in found[path]

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        """A missing file, a folder and a file that is not UTF-8 are named."""
        assert mistakes(tmp_path / "none.yaml") == {
            f"{tmp_path}/none.yaml": "cannot be read: No such file or directory"
        }
        assert mistakes(tmp_path) == {str(tmp_path): "cannot be read: Is a directory"}
        (tmp_path / "latin.yaml").write_bytes(b"queue: \xe9")
        assert "is not UTF-8 text (byte 7)" in mistakes(tmp_path / "latin.yaml").values()

    @pytest.mark.parametrize("text", ['{"queue": {"prefix": "a", "prefix": "b"}}', '{"queue": '])
    def test_wrong_json(self, tmp_path: Path, text: str) -> None:
        """JSON is as strict: no doubled key, and a syntax error has its place."""
        (said,) = mistakes(write(tmp_path, text, "notifier.json")).values()
        assert "'prefix' is there twice" in said or "line 1, column 11" in said

    @pytest.mark.parametrize(
        "text",
        [
            "queue: {url: 'amqp://u:hunter2@[', prefix: ' '}",
            "queue: {password: [hunter2]}",
            "queue: {password: {hunter2: 1}}",
            "log: {subject_key: hunter2, subject_key_file: none}",
            "issuers: {'https://a': {keys: [{file: notifier.yaml}], jwks_uri: 'ftp://u:hunter2@h'}}",
        ],
    )
    def test_no_secret_is_shown(self, tmp_path: Path, text: str) -> None:
        """No text of a mistake holds a value that may be secret."""
        assert "hunter2" not in str(mistakes(write(tmp_path, text)))

    def test_no_secret_in_a_repr(self) -> None:
        """Settings can be printed."""
        environ = {"NOTIFIER_QUEUE__URL": "amqp://u:hunter2@h", "NOTIFIER_LOG__SUBJECT_KEY": "hunter2"}
        assert "hunter2" not in repr(load_settings(None, environ))


class TestEnvironment:
    def test_every_kind_of_value(self, tmp_path: Path) -> None:
        """Numbers, truths, durations, lists and mappings can be given, and win over the file, member by member."""
        path = write(tmp_path, "queue: {url: 'amqp://a', prefix: mine}\ndelivery: {timeout: 3s, retry: {base: 1s}}")
        settings = load_settings(
            path,
            {
                "NOTIFIER_QUEUE__URL": '["amqp://b", "amqp://c"]',
                "NOTIFIER_QUEUE__PASSWORD": "[not json",
                "NOTIFIER_QUEUE__USERNAME": "12345",
                "NOTIFIER_DELIVERY__MAX_IN_FLIGHT": "7",
                "NOTIFIER_DELIVERY__RETRY__FACTOR": "2",
                "NOTIFIER_EGRESS": '{"allow": ["10.0.0.0/8"]}',
                "NOTIFIER_EGRESS__ALLOW_HTTP": "true",
                "NOTIFIER_API__LISTEN": "127.0.0.1:0",
                "NOTIFIER_ISSUERS": json.dumps({"https://id.example.com": {"keys": [{"file": "notifier.yaml"}]}}),
                "NOTIFIER_OUTCOMES": "",
                "PATH": "/bin",
            },
        )
        assert settings.queue.url == ("amqp://b", "amqp://c")
        assert (settings.queue.prefix, settings.queue.username) == ("mine", "12345")
        assert settings.queue.password == SecretStr("[not json")
        assert (settings.delivery.timeout, settings.delivery.max_in_flight) == (3.0, 7)
        assert (settings.delivery.retry.base, settings.delivery.retry.factor) == (1.0, 2.0)
        assert settings.egress.allow == (ip_network("10.0.0.0/8"),)
        assert settings.egress.allow_http
        assert settings.api is not None
        assert settings.api.listen.port == 0
        assert list(settings.issuers) == ["https://id.example.com"]

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("NOTIFIER_QUEUE_URL", "did you mean NOTIFIER_QUEUE__URL?"),
            ("NOTIFIER_QUEUE__URLL", "did you mean NOTIFIER_QUEUE__URL?"),
            ("NOTIFIER_queue__url", "did you mean NOTIFIER_QUEUE__URL?"),
            ("NOTIFIER_SHUTDOWN", "did you mean NOTIFIER_SHUTDOWN_GRACE?"),
            ("NOTIFIER_X", "`notifier schema config` lists them"),
        ],
    )
    def test_a_misspelt_name(self, name: str, says: str) -> None:
        """A variable that means nothing is a mistake that names the nearest one."""
        assert mistakes(None, {name: "5s"}) == {name: f"there is no such setting; {says}"}

    def test_a_wrong_value(self) -> None:
        """A wrong value is told by the key it sets, and broken JSON by the variable."""
        assert list(mistakes(None, {"NOTIFIER_DELIVERY__TIMEOUT": "5"})) == ["delivery.timeout"]
        assert list(mistakes(None, {"NOTIFIER_EGRESS__ALLOW": "[10.0.0.0/8"})) == ["NOTIFIER_EGRESS__ALLOW"]

    def test_names_that_are_not_meant_for_us(self) -> None:
        """The tests' own variables, and those that Kubernetes makes of services called notifier…, are passed over."""
        environ = {
            "NOTIFIER_CONFIG": "/etc/notifier.yaml",
            "NOTIFIER_TEST_AMQP_URL": "amqp://x",
            "NOTIFIER_SERVICE_HOST": "10.0.0.1",
            "NOTIFIER_SERVICE_PORT_API": "8080",
            "NOTIFIER_PORT": "tcp://10.0.0.1:8080",
            "NOTIFIER_PORT_8080_TCP_ADDR": "10.0.0.1",
            "NOTIFIER_OPS_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        }
        assert load_settings(None, environ) == load_settings(None, {})

    def test_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative path is taken from the folder of the file that names it, and one of the environment from here."""
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


class TestSchema:
    def test_takes_the_sample(self, tmp_path: Path) -> None:
        """The JSON Schema of the configuration is valid, and takes the samples."""
        schema = config_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        sample(tmp_path)
        for document, part in (("notifier.yaml", None), ("clients.yaml", "clients"), ("tokens.yaml", "tokens")):
            instance = json.loads(json.dumps(read_document(tmp_path / document), default=str))
            chosen = schema if part is None else {**schema["$defs"][part], "$defs": schema["$defs"]}
            jsonschema.Draft202012Validator(chosen).validate(instance)

    def test_describes_every_member(self) -> None:
        """Each member of the service's file and of a client has a description, and durations their unit."""
        definitions = config_schema()["$defs"]
        nameless = [
            (name, member)
            for name in ("QueueSettings", "DeliverySettings", "ClientOptions", "ClientMetadata", "LogSettings")
            for member, value in definitions[name]["properties"].items()
            if "description" not in value
        ]
        assert nameless == []
        assert definitions["DeliverySettings"]["properties"]["timeout"]["default"] == "5s"
        assert definitions["OpsSettings"]["properties"]["listen"]["default"] == "127.0.0.1:9464"

    def test_refuses_a_misspelt_key(self) -> None:
        """Unknown keys are wrong by the schema too."""
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.Draft202012Validator(config_schema()).validate({"queu": {}})


class TestTokens:
    def test_only_digests_are_kept(self, tmp_path: Path) -> None:
        """A token may be given itself or by its SHA-256, and is known by that alone."""
        digest = "b1" * 32
        path = write(
            tmp_path,
            f"- {{name: idp, token: hunter2, scopes: [publish]}}\n"
            f"- {{name: ops, token_sha256: {digest}, scopes: [read, repair], issuers: ['https://a']}}\n",
        )
        idp, ops = load_tokens(path, ["https://a"])
        assert idp.sha256.hex().startswith("f52fbd32b2b3b86f")
        assert idp.scopes == frozenset({"publish"})
        assert idp.issuers is None
        assert ops.sha256.hex() == digest
        assert ops.scopes == frozenset({"read", "repair"})
        assert ops.issuers == frozenset({"https://a"})

    def test_every_mistake(self, tmp_path: Path) -> None:
        """Mistakes are told at once, with the place in the file and without the token."""
        path = write(
            tmp_path,
            """
- {name: a, token: hunter2, scopes: [publish]}
- {name: a, token: hunter2, scopes: [publish]}
- {name: b, scopes: [publish]}
- {name: c, token: hunter2, token_sha256: 00, scopes: [write], issuer: x}
- {name: d, token: x, scopes: [], issuers: [nobody]}
- {name: e, token: y, scopes: [read], issuers: [nobody]}
""",
            "tokens.yaml",
        )
        with pytest.raises(ConfigurationError) as caught:
            load_tokens(path, ["https://a"])
        assert [mistake.path for mistake in caught.value.mistakes] == [
            "tokens.yaml[1].name",
            "tokens.yaml[1]",
            "tokens.yaml[2]",
            "tokens.yaml[3].token_sha256",
            "tokens.yaml[3].scopes[0]",
            "tokens.yaml[3].issuer",
            "tokens.yaml[4].scopes",
            "tokens.yaml[5].issuers",
        ]
        assert "hunter2" not in str(caught.value)

    def test_not_a_list(self, tmp_path: Path) -> None:
        """An empty file is no list of tokens: it may be half written."""
        with pytest.raises(ConfigurationError, match="must be a list"):
            load_tokens(write(tmp_path, ""))


class TestYaml:
    def test_anchors_and_merges(self, tmp_path: Path) -> None:
        """Anchors, aliases and merged mappings mean what they mean in YAML; own members win over merged ones."""
        path = write(
            tmp_path,
            "a: &one {x: 1, y: &two [yes, ~, 1.5, 'no', 0x10]}\nb: {<<: *one, x: 2}\nc: {<<: [{x: 3}, *one]}\nd: *two\n"
            "e: !!str 5\nf: |\n  text\n",
        )
        two = [True, None, 1.5, "no", 16]
        assert read_document(path) == {
            "a": {"x": 1, "y": two},
            "b": {"x": 2, "y": two},
            "c": {"x": 3, "y": two},
            "d": two,
            "e": "5",
            "f": "text\n",
        }

    @pytest.mark.parametrize("text", ["a: &x [*x]", "a: {<<: 5}"])
    def test_what_means_nothing(self, tmp_path: Path, text: str) -> None:
        """A value that holds itself, and a merge with what is no mapping, are mistakes with their place."""
        with pytest.raises(ConfigurationError) as caught:
            read_document(write(tmp_path, text))
        assert "line 1, column" in str(caught.value)

    def test_mistakes_are_told_once(self, tmp_path: Path) -> None:
        """The text of the error is every mistake."""
        with pytest.raises(ConfigurationError) as caught:
            load_settings(write(tmp_path, "a: 1\nb: 2"), {})
        assert len(caught.value.mistakes) == 2
        assert all(isinstance(mistake, Mistake) for mistake in caught.value.mistakes)
