"""Test errors of a configuration: all at once, each with the path of its key."""

from pathlib import Path

import pytest

from notifier.settings.config_file import load_settings
from tests.settings.config_sample import mistakes, require_single_mistake, write

EXTERNAL = "amqps://h/?auth=external"
OURS = "tls: {cert_file: notifier.yaml}"


class TestMistakes:
    def test_all_at_once(self, tmp_path: Path) -> None:
        """All errors of a file and of the environment are reported, each with the path of its key."""
        path = write(
            tmp_path,
            """
queue: {urll: "amqp://x", prefetch: {bulk: 0}, buckets: much}
issuers:
  "https://id.example.com": {keys: [{file: none.pem}], publisher: [a]}
  "id.example.com": {keys: []}
delivery: {timeout: 5, retry: {base: soon}}
egress: {allow: [10.0.0.1/8]}
log: {level: loud}
outcomes: some
shutdwn_grace: 20s
""",
        )
        found = mistakes(path, {"NOTIFIER_QUEU__URL": "amqp://x"})
        assert found.keys() == {
            "NOTIFIER_QUEU__URL", "queue.urll", "queue.prefetch.bulk", "queue.buckets",
            'issuers["https://id.example.com"].keys[0].file', 'issuers["https://id.example.com"].publisher',
            'issuers["id.example.com"]', 'issuers["id.example.com"].keys', "delivery.timeout", "delivery.retry.base",
            "egress.allow[0]", "log.level", "outcomes",
            "shutdwn_grace",
        }  # fmt: skip
        assert found["NOTIFIER_QUEU__URL"] == "there is no such setting; did you mean NOTIFIER_QUEUE__URL?"
        assert found["queue.urll"] == "there is no such key; did you mean url?"
        assert found["shutdwn_grace"] == "there is no such key; did you mean shutdown_grace?"
        assert found['issuers["https://id.example.com"].publisher'] == "there is no such key; did you mean publishers?"
        assert found['issuers["https://id.example.com"].keys[0].file'] == f"there is no file {tmp_path}/none.pem"
        assert found["delivery.timeout"] == "5 has no unit: write 5s if seconds are meant (or ms, m, h, d)"
        assert found["delivery.retry.base"].startswith("is not a duration: write a number and a unit")
        assert found["log.level"] == "must be 'debug', 'info', 'warning' or 'error'"
        assert found["outcomes"] == "must be 'off', 'failures' or 'all'"
        assert "host bits" in found["egress.allow[0]"]

    @pytest.mark.parametrize(
        ("text", "path", "expected"),
        [
            ("queue: [1", "notifier.yaml", "line 2, column 1: did not find expected ',' or ']'"),
            ("queue: {}\nqueue: {}", "notifier.yaml", "line 2, column 1: the key 'queue' is there twice"),
            ("- queue", "notifier.yaml", "must be a mapping"),
            ("a: 1\n---\nb: 2", "notifier.yaml", "line 2, column 1: a second document"),
            ("a: *nobody", "notifier.yaml", "nothing before this is marked"),
            ("a: \x07", "notifier.yaml", "control characters"),
            ("? {a: b}\n: c", "notifier.yaml", "cannot be a key"),
            ("shutdown_grace: 2026-99-99", "notifier.yaml", "put it in quotes"),
            ("shutdown_grace: !!python/object:os.x 1", "notifier.yaml", "cannot be read"),
            ("[" * 100_000, "notifier.yaml", "nested too deeply"),
            ("log:\n\u00a0\u00a0level: info", '["\xa0\xa0level"]', "it begins with U+00A0 (NO-BREAK SPACE); remove it"),
            ("“log”: {level: info}", '["“log”"]', "it begins with the quotation mark “"),
            ("1: 2", "[1]", "keys must be texts"),
            ("queue: none", "queue", "must be a mapping"),
            ("queue: {username: 5}", "queue.username", "put it in quotes"),
            ("queue: {url: 'http://x'}", "queue.url", "must be sqlite:PATH, amqp://HOST"),
            ("queue: {url: 'sqlite:'}", "queue.url", "must be sqlite:PATH"),
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
            ("queue: {url: 'amqp://h', password_file: '~nobody-/x'}", "queue.password_file", "there is no such home"),
            ("queue: {url: 'sqlite:~nobody-/x'}", "queue.url", "there is no such home"),
            ("queue: {url: ''}", "queue.url", "must not be empty"),
            ("queue: {url: ' '}", "queue.url", "must not be empty"),
            ("queue: {url: 'amqp://h '}", "queue.url", "ends with a blank; remove it"),
            ("queue: {url: “amqp://h”}", "queue.url", "begins with the quotation mark “"),
            ("queue: {url: 'amqp://h/?ssl=1'}", "queue.url", "the option ssl has no effect; for TLS write amqps://"),
            ("queue: {url: 'amqps://h/?SSL_Options.verify=x'}", "queue.url", "the option SSL_Options.verify has no"),
            ("queue: {url: 'amqps://h/?cafile=/x'}", "queue.url", "the option cafile has no effect"),
            ("queue: {url: 'amqp://h/?heartbeats=9'}", "queue.url", "did you mean heartbeat?"),
            ("queue: {url: 'amqp://h/?p%40ss=9'}", "queue.url", "the option in the query has no effect; there are"),
            ("queue: {url: 'amqp://h/a b'}", "queue.url", "has a blank in it; write %20"),
            ("queue: {prefix: 'a b'}", "queue.prefix", "must match"),
            ("queue: {url: 'amqps://h/?auth_mechanism=external'}", "queue.url", "write auth instead of auth_mechanism"),
            ("queue: {url: 'amqps://h/?auth=amqplain'}", "queue", "auth must be plain, or external in each URL"),
            ("queue: {url: ['amqps://h/?auth=external', 'amqps://i']}", "queue", "auth must be plain, or external in"),
            ("queue: {url: 'amqps://h/?auth=external'}", "queue", "give tls.cert_file and tls.key_file"),
            (f"queue: {{url: 'amqps://u@h/?auth=external', {OURS}}}", "queue", "takes the user name from our"),
            (f"queue: {{url: '{EXTERNAL}', username: u, {OURS}}}", "queue", "takes the user name from our"),
            (f"queue: {{url: '{EXTERNAL}', password: p, {OURS}}}", "queue", "auth=external needs no password"),
            ("queue: {prefetch: {events: 9}}", "queue.prefetch.events", "is gone: it is 512 now"),
            ("delivery: {retry: {factor: 2}}", "delivery.retry.factor", "is gone: it is 3 now; for equal waits"),
            ("tracing: {sample: 0.1}", "tracing", "is gone: the variable OTEL_EXPORTER_OTLP_ENDPOINT names"),
            ("queue: {management: 'https://h'}", "queue.management", "is gone: rabbitmqctl list_policies"),
            ("ops: {listen: ':9464'}", "ops.listen", 'must be an address and a port: write "*:9464" for all addresses'),
            ("ops: {listen: 9464}", "ops.listen", 'or "127.0.0.1:9464" for this machine alone'),
            ("ops: {listen: '[*]:9464'}", "ops.listen", 'write "*:9464" for all addresses of this machine'),
            ("ops: {listen: '+:9464'}", "ops.listen", 'write "*:9464" for all addresses of this machine'),
            ("ops: {listen: '::1:9464'}", "ops.listen", 'write an IPv6 address in brackets, "[::1]:9464"'),
            ("ops: {listen: 'http://localhost:9464'}", "ops.listen", "write it without http://"),
            ("api: {listen: '*:8080'}", "api", "tokens_file is required"),
            ("ops: {listen: 'localhost:70000'}", "ops.listen", "the port must be at most 65535"),
            ("ops: {listen: '[fe80::1%eth0]:19464'}", "ops.listen", 'write "127.0.0.1:8080", "[::1]:8080", or'),
            ("api: {listen: '0.0.0.0:8080'}", "api", "tokens_file is required"),
            ("api: {listen: 'id.internal:8080'}", "api", "tokens_file is required"),
            ("api: {tls: {cert_file: notifier.yaml}}", "api.tls.key_file", "is required"),
            ("api: {listen: '127.0.0.1:9464'}", "", "each needs its own"),
            ("queue: {url: 'amqp://h', username: ''}", "queue.username", "must not be empty"),
            (
                "issuers: {'https://a': {keys: [{file: notifier.yaml}], publishers: ['']}}",
                'issuers["https://a"].publishers[0]',
                "must not be empty",
            ),
            ("queue: {url: 'amqp://h', username: ' idp'}", "queue.username", "begins with a blank"),
            (
                "issuers: {'https://a': {keys: [{file: notifier.yaml}], publishers: [“idp”]}}",
                'issuers["https://a"].publishers[0]',
                "begins with the quotation mark “",
            ),
            ("issuers: {'https://a ': {keys: [{file: notifier.yaml}]}}", 'issuers["https://a "]', "ends with a blank"),
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
            ("delivery: {timeout: 11m}", "delivery.timeout", "must be at most 10m"),
            ("delivery: {timeout: 599s}", "delivery", "timeout is 599s; it must be less than 599s"),
            ("delivery: {retry: {base: 2h}}", "delivery", "must not be longer than retry.max_delay"),
            ("registry: {file: none.yaml}", "registry.file", "there is no file"),
            ("registry: {file: 'notifier.yaml '}", "registry.file", "ends with a blank; remove it"),
            ("registry: {cache: ''}", "registry.cache", "must not be empty"),
            (
                "registry: {defaults: {'https://a': {proxy: 'http://u:p#s@proxy:3128'}}}",
                'registry.defaults["https://a"].proxy',
                "has @, /, ? or # in a user name or password; write %40",
            ),
            (
                "issuers: {'https://u:p@a': {keys: [{file: notifier.yaml}]}}",
                'issuers["https://u:[password]@a"]',
                "must hold no user and password",
            ),
            ("registry: {defaults: {'https://a,b': {}}}", 'registry.defaults["https://a,b"]', "one host"),
            ("colour: red", "colour", "there is no such key; use one of queue, ops, api"),
        ],
    )
    def test_single_error(self, tmp_path: Path, text: str, path: str, expected: str) -> None:
        """Each error has the path of its key, and the expected value."""
        require_single_mistake(tmp_path, text, path, expected)

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        """A missing file, a folder and a file that is not UTF-8 are reported."""
        assert mistakes(tmp_path / "none.yaml") == {
            f"{tmp_path}/none.yaml": "cannot be read: No such file or directory"
        }
        assert mistakes(tmp_path) == {str(tmp_path): "cannot be read: Is a directory"}
        (tmp_path / "latin.yaml").write_bytes(b"queue: \xe9")
        assert "is not UTF-8 text (byte 7)" in mistakes(tmp_path / "latin.yaml").values()

    @pytest.mark.parametrize("text", ['{"queue": {"prefix": "a", "prefix": "b"}}', '{"queue": '])
    def test_wrong_json(self, tmp_path: Path, text: str) -> None:
        """JSON is as strict: no duplicate key, and a syntax error has its position."""
        (error,) = mistakes(write(tmp_path, text, "notifier.json")).values()
        assert "'prefix' is there twice" in error or "line 1, column 11" in error

    @pytest.mark.parametrize(
        "text",
        [
            "queue: {url: 'amqp://u:hunter2@[', prefix: ' '}",
            "queue: {'amqp://u:hunter2@h': 1}",
            "issuers: {'https://u:hunter2@h': {keys: [{file: notifier.yaml}]}}",
            "issuers: {'https://h': {keys: [{file: notifier.yaml}], jwks_uri: 'https://u:hunter2@h'}}",
            "queue: {password: [hunter2]}",
            "queue: {password: {hunter2: 1}}",
            "log: {subject_key: hunter2, subject_key_file: none}",
            "issuers: {'https://a': {keys: [{file: notifier.yaml}], jwks_uri: 'ftp://u:hunter2@h'}}",
        ],
    )
    def test_no_secret_is_shown(self, tmp_path: Path, text: str) -> None:
        """No text of an error contains a value that may be secret."""
        assert "hunter2" not in str(mistakes(write(tmp_path, text)))

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("amqp://u:hunter1@a,amqp://u:hunter2@b", "give a list"),
            ("amqp://u:hunter1@a;amqp://u:hunter2@b", "give a list"),
            ("amqp://u:hunter1@a , amqps://u:hunter2@b", "give a list"),
            ("amqp://u:hunter1@a amqp://u:hunter2@b", "give a list"),
            ("amqp://u:hunter1@a|amqp://u:hunter2@b", "give a list"),
            ("amqp://u:hunter1@a,u:hunter2@b", "give a list"),
            ("amqp://u:hunter1@a/v,u:hunter2@b/v", "write %40, %2F, %3F, %23 or %5B"),
            ("amqp://u:hunter1@a、amqp://u:hunter2@b", "write %40, %2F, %3F, %23 or %5B"),
            ('["amqp://u:hunter1@a","amqp://u:hunter1@b;amqp://u:hunter2@c"]', "give a list"),
            ("amqp://u:hunter2#@h", "write %40, %2F, %3F, %23 or %5B"),
            ("amqp://u:hunter2/x@h", "write %40, %2F, %3F, %23 or %5B"),
            ("amqp://u:[hunter2@h", "write %40, %2F, %3F, %23 or %5B"),
            ("amqp://u:hunter2@h:x", "must have a host, and a port"),
            ("amqp:u:hunter2@h", "must have a host, and a port"),
            (" amqp://u:hunter2@h", "begins with a blank"),
            ("http://u:hunter2@h", "must be sqlite:PATH, amqp://HOST"),
        ],
    )
    def test_a_broker_url_that_cannot_be_read(self, url: str, expected: str) -> None:
        """A single error has the cause, and nothing of the URL."""
        found = mistakes(None, {"NOTIFIER_QUEUE__URL": url})
        assert list(found) == ["queue.url"]
        assert expected in found["queue.url"]
        assert "hunter" not in str(found)

    @pytest.mark.parametrize("value", ["", " ", "\n"])
    @pytest.mark.parametrize("name", ["QUEUE__URL", "QUEUE__PASSWORD", "LOG__SUBJECT_KEY", "OUTCOMES", "API"])
    def test_an_empty_variable(self, tmp_path: Path, name: str, value: str) -> None:
        """It is an error at each setting: a variable that a deployment left empty does not mean the default."""
        path = write(tmp_path, "queue: {url: 'amqp://h'}")
        found = mistakes(path, {f"NOTIFIER_{name}": value})
        assert list(found) == [f"NOTIFIER_{name}"]
        assert "is empty; give it a value, or unset it" in found[f"NOTIFIER_{name}"]

    def test_a_home_that_is_not_there(self, tmp_path: Path) -> None:
        """In a variable beside a file it is an error too, at the key of the variable."""
        path = write(tmp_path, "queue: {url: 'amqp://h'}")
        found = mistakes(path, {"NOTIFIER_QUEUE__PASSWORD_FILE": "~nobody-/x"})
        assert found["queue.password_file"].endswith("there is no such home; write the path in full")
        found = mistakes(path, {"NOTIFIER_QUEUE__URL": "sqlite:~nobody-/x"})
        assert found["queue.url"].endswith("there is no such home; write the path in full")

    def test_no_secret_in_a_repr(self) -> None:
        """Settings can be printed."""
        environ = {"NOTIFIER_QUEUE__URL": "amqp://u:hunter2@h", "NOTIFIER_LOG__SUBJECT_KEY": "hunter2"}
        assert "hunter2" not in repr(load_settings(None, environ))
