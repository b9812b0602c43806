"""What configures pages for browsers: their keys, their hosts, mistakes, and reloads."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from notifier.configuration.loading import LoadedConfiguration, load
from notifier.features import FEATURES
from notifier.features.browsers.front_channel_context import seal_context
from notifier.features.browsers.web_keys import PagesPart
from notifier.features.browsers.web_settings import web_of
from notifier.model.client import Algorithm
from notifier.model.errors import ConfigurationError
from notifier.model.front_channel import FrontChannelContext
from notifier.tokens.key_files import generate_key
from tests.cli.in_process import notifier
from tests.configuration.clients.registry_sample import HOOK
from tests.configuration.clients.registry_sample import ONE as ID
from tests.configuration.clients.registry_sample import TWO as LOGIN
from tests.configuration.clients.test_authority import built, ignored_members, of_file, of_list, row, shop
from tests.configuration.test_all_mistakes import ISS, OTHER, mistakes_of, service
from tests.configuration.test_live_configuration import live, write
from tests.system.site import Site
from tests.tokens.key_folder import pem

# ── The keys that seal the URLs of pages, and the warnings of `check` on issuers without pages ────────────────────


ONE, TWO = "https://one.example.com", "https://two.example.com"
KEYS = [Fernet.generate_key().decode() for _ in range(11)]
NOW = 1_800_000_000.0
FRONT = "https://shop.example.com/out"

Load = Callable[..., LoadedConfiguration]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Return a function that loads a configuration of two issuers with the given keys and pages."""

    def read(keys: str, *pages: str, at: Mapping[str, str] = {}, own: Mapping[str, str] = {}) -> LoadedConfiguration:
        for name in ("one.pem", "two.pem"):
            (tmp_path / name).write_bytes(generate_key(Algorithm.ES256))
        (tmp_path / "web.keys").write_text(keys)
        clients = [
            {
                "client_id": "shop",
                "issuer": iss,
                "frontchannel_logout_uri": FRONT,
                "id_token_signed_response_alg": "ES256",
            }
            for iss in (ONE, TWO)
        ]
        (tmp_path / "clients.yaml").write_text(yaml.safe_dump(clients))
        issuers = {iss: {"url": f"{at.get(iss, iss)}/connect/notify"} for iss in pages}
        for number, (iss, text) in enumerate(own.items()):
            (tmp_path / f"own-{number}.keys").write_text(text)
            issuers[iss]["keys_file"] = f"own-{number}.keys"
        document = {
            "issuers": {iss: {"keys": [{"file": name}]} for iss, name in ((ONE, "one.pem"), (TWO, "two.pem"))},
            "registry": {"file": "clients.yaml"},
            "web": {"keys_file": "web.keys", "issuers": issuers},
        }
        (tmp_path / "n.yaml").write_text(yaml.safe_dump(document))
        return load(tmp_path / "n.yaml", {}, FEATURES)

    return read


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("", "web.keys is empty; make one by `notifier keys web`"),
        (f"{KEYS[0]}\nno key\n", "line 2 of"),
        ("\n".join(KEYS), "has 11 keys"),
        (f"“{KEYS[0]}”", "begins with the quotation mark “"),
        (KEYS[0][:-2], "is not a Fernet key; make one by"),
    ],
    ids=["empty", "no key", "too many", "quoted", "cut"],
)
def test_unusable_keys_are_refused(loaded: Load, text: str, phrase: str) -> None:
    """With the way out, and without the key."""
    with pytest.raises(ConfigurationError) as refused:
        loaded(text, ONE, TWO)
    (mistake,) = refused.value.mistakes
    assert mistake.path == "web.keys_file"
    assert phrase in mistake.text
    assert KEYS[0][:8] not in mistake.text


def test_pages_of_an_issuer_that_is_not_configured_are_refused(loaded: Load) -> None:
    """Else nobody would ever see them."""
    with pytest.raises(ConfigurationError) as refused:
        loaded(KEYS[0], ONE, TWO, "https://two.example.org")
    (mistake,) = refused.value.mistakes
    assert mistake.path == 'web.issuers["https://two.example.org"]'
    assert mistake.text == f"https://two.example.org is not configured under issuers; did you mean {TWO}?"


def test_front_channel_clients_without_pages_cause_a_warning(loaded: Load) -> None:
    """It has clients for a page, and no page."""
    warnings = [str(each) for each in loaded(KEYS[0], ONE).warnings]
    assert warnings == [
        f'web.issuers["{TWO}"]: is missing, so no browser calls the frontchannel_logout_uri of 1 client'
    ]
    assert not loaded(KEYS[0], ONE, TWO).warnings


def test_pages_on_another_origin_than_their_issuer_are_warned_of(loaded: Load) -> None:
    """It is only a warning: an identity server may be behind another name."""
    [warning] = loaded(KEYS[0], ONE, TWO, at={TWO: "http://two.example.com"}).warnings
    assert warning.path == f'web.issuers["{TWO}"].url'
    assert warning.text.startswith(f"is not on {TWO}, as the issuer is")


def test_an_issuer_has_exclusive_keys(loaded: Load) -> None:
    """They seal and open only its pages; the shared keys open its pages, too. The files are listed as secrets."""
    part = loaded(KEYS[0], ONE, TWO, own={ONE: f"{KEYS[1]}\n\n{KEYS[2]}\n"}).part(PagesPart)
    assert part.keys is not None
    assert (part.keys.has_exclusive_keys(ONE), part.keys.has_exclusive_keys(TWO)) == (True, False)
    opened = {
        (number, iss): part.keys.open(_sealed(iss, KEYS[number]), NOW) for number in range(4) for iss in (ONE, TWO)
    }
    assert {which: each.exclusive_key for which, each in opened.items() if each is not None} == {
        (0, ONE): False, (0, TWO): False, (1, ONE): True, (2, ONE): True,
    }  # fmt: skip
    assert Fernet(KEYS[1]).decrypt(part.keys.keys_of(ONE).encrypt(b"x")) == b"x"
    assert Fernet(KEYS[0]).decrypt(part.keys.keys_of(TWO).encrypt(b"x")) == b"x"
    assert list(part.secrets) == ["web.keys_file", f'web.issuers["{ONE}"].keys_file']


@pytest.mark.parametrize(
    ("own", "setting", "phrase"),
    [
        ({ONE: KEYS[0]}, ONE, "is also a key of web.keys_file: no two issuers may share their own keys"),
        (
            {ONE: KEYS[1], TWO: f"{KEYS[2]}\n{KEYS[1]}"},
            TWO,
            f'line 2 of own-1.keys is also a key of web.issuers["{ONE}"].keys_file',
        ),
        ({ONE: "no key"}, ONE, "line 1 of"),
        ({ONE: ""}, ONE, "is empty"),
    ],
    ids=["shared", "another's", "no key", "empty"],
)
def test_unusable_exclusive_keys_are_refused(loaded: Load, own: Mapping[str, str], setting: str, phrase: str) -> None:
    """A key of two issuers would let who has it for the one bring addresses of the other's clients."""
    with pytest.raises(ConfigurationError) as refused:
        loaded(KEYS[0], ONE, TWO, own=own)
    (mistake,) = refused.value.mistakes
    assert mistake.path == f'web.issuers["{setting}"].keys_file'
    assert all(part in mistake.text for part in phrase.split(" own-1.keys "))


def _sealed(iss: str, key: str) -> str:
    return seal_context(
        FrontChannelContext(iss=iss, sid=None, clients=(("shop", None),)), MultiFernet([Fernet(key)]), NOW
    )


# ── The host of an issuer's pages is the issuer's own ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize("own", ["https://pages.example.com/logout", "https://pages.example.com:8080/logout"])
def test_no_source_lets_browsers_call_the_pages_host(tmp_path: Path, own: str) -> None:
    """With the cookies of their host. For a client of another issuer it is an address like any."""
    (tmp_path / "web.key").write_bytes(Fernet.generate_key())
    pages = {ID: {"url": "https://pages.example.com/connect/notify"}}
    web = {"listen": "127.0.0.1:0", "keys_file": str(tmp_path / "web.key"), "issuers": pages}
    phrase = row(frontchannel_logout_uri=own)
    made = built(tmp_path, of_list(phrase, issuer=ID), of_list(phrase, name="two", issuer=LOGIN), web=web)
    assert (shop(made).backchannel_logout_uri, shop(made).front_channel) == (HOOK, None)
    assert shop(made, LOGIN).front_channel is not None
    [left] = ignored_members(made)
    assert "the issuer's own host: browsers would send its cookies along" in left
    by_file = of_file({"client_id": "shop", "frontchannel_logout_uri": own})
    assert shop(built(tmp_path, of_list(row(), issuer=ID), by_file, web=web)).front_channel is not None


# ── `notifier keys web`: the keys by which the URLs of pages are sealed, and their renewal ────────────────────────


def test_a_key_is_made_for_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    """It is never overwritten; a second key is added as a second line; a configuration accepts both."""
    done = notifier("keys", "web", "--out", "web.keys", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (
        0,
        'web.keys: a key for web.keys_file, or web.issuers.<iss>.keys_file: "web.keys"\n',
    )
    path = tmp_path / "web.keys"
    assert path.stat().st_mode & 0o777 == 0o600
    first = path.read_bytes()
    again = notifier("keys", "web", "--out", "web.keys", cwd=tmp_path)
    assert again.returncode == 2
    assert "never overwritten" in again.stderr
    assert path.read_bytes() == first
    second = notifier("keys", "web", cwd=tmp_path).stdout
    with path.open("a") as file:
        file.write(second)
    assert [Fernet(line) is not None for line in path.read_text().splitlines()] == [True, True]
    site = Site(tmp_path, f"sqlite:{tmp_path}/q.db")
    site.config["web"] = {"listen": "127.0.0.1:0", "keys_file": "web.keys"}
    site.write()
    assert notifier("check", "-c", "notifier.yaml", cwd=tmp_path).returncode == 0
    path.write_text("no key\n")
    wrong = notifier("check", "-c", "notifier.yaml", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "make one by `notifier keys web`" in wrong.stderr + wrong.stdout


# ── Errors of the section `web` are listed with all others ────────────────────────────────────────────────────────


def test_all_mistakes_of_web_are_listed(tmp_path: Path) -> None:
    """A certificate, the keys of pages, an issuer that is none of ours, and a section beside it."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "cert.pem").write_text("no key")
    tls = {"cert_file": "cert.pem", "key_file": "cert.pem"}
    issuers = {OTHER: {"url": "https://login.example.org/"}}
    document = service(web={"tls": tls, "keys_file": "cert.pem", "issuers": issuers}, outcome="all")
    found = mistakes_of(tmp_path, document, clients="[]", tokens="[]")
    assert set(found) == {"web.tls", "web.keys_file", f'web.issuers["{OTHER}"]', "outcome"}


def test_keys_are_required_where_pages_are_served(tmp_path: Path) -> None:
    """The addresses of front-channel pages are sealed. Nothing else that the listener serves needs keys."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    pages = {"issuers": {ISS: {"url": f"{ISS}/notify"}}}
    found = mistakes_of(tmp_path, service(web=pages), clients="[]", tokens="[]")
    assert "keys_file is required, since it seals" in found["web"]
    for web in ({}, {"check_session": {"login": {"issuer": ISS, "formula": "duende"}}}):
        (tmp_path / "n.yaml").write_text(json.dumps(service(web=web)))
        loaded = load(tmp_path / "n.yaml", {}, FEATURES)
        assert loaded.part(PagesPart).keys is None


# ── A reload takes the pages' settings, as it takes all others ────────────────────────────────────────────────────


def test_pages_follow_a_reload_and_their_listener_does_not(tmp_path: Path) -> None:
    """Issuers and keys of pages are taken at once; the address, and the whole section, need a restart."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    (tmp_path / "clients.yaml").write_text("[]")
    (tmp_path / "web.keys").write_bytes(Fernet.generate_key())
    face = {"listen": "127.0.0.1:0", "keys_file": "web.keys", "issuers": {ISS: {"url": "https://id.example.com/out"}}}
    running = live(tmp_path, web=face)
    first = running.current.part(PagesPart).keys
    (tmp_path / "web.keys").write_bytes(Fernet.generate_key())
    (tmp_path / "own.keys").write_bytes(Fernet.generate_key())
    own = {"url": "https://id.example.com/out", "keys_file": "own.keys"}
    write(tmp_path, web={**face, "issuers": {ISS: own}})
    assert running.reload(requested=False)
    keys = running.current.part(PagesPart).keys
    assert keys is not None
    before = keys.keys_of(ISS).encrypt(b"x")
    (tmp_path / "own.keys").write_bytes(Fernet.generate_key())
    assert running.reload(requested=False)
    keys = running.current.part(PagesPart).keys
    assert keys is not None
    with pytest.raises(InvalidToken):
        keys.keys_of(ISS).decrypt(before)
    write(tmp_path, web={**face, "issuers": {}})
    assert running.reload(requested=False)
    assert (running.reloads.changed_fixed_settings, running.current.part(PagesPart).keys is first) == ((), False)
    section = web_of(running.current.settings)
    assert section is not None
    assert section.issuers == {}
    write(tmp_path, web={**face, "listen": "127.0.0.1:8090"})
    assert running.reload(requested=False)
    assert running.reloads.changed_fixed_settings == ("web.listen",)
    write(tmp_path)
    assert running.reload(requested=False)
    assert running.reloads.changed_fixed_settings == ("web",)


def test_a_missing_keys_file_hides_no_wrong_one(tmp_path: Path) -> None:
    """Both are reported in one run."""
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    for name, text in (("clients.yaml", "[]"), ("tokens.yaml", "[]"), ("words", "no key")):
        (tmp_path / name).write_text(text)
    issuers = {ISS: {"url": f"{ISS}/n", "keys_file": "gone"}}
    found = mistakes_of(tmp_path, service(web={"keys_file": "words", "issuers": issuers}))
    assert list(found) == [f'web.issuers["{ISS}"].keys_file', "web.keys_file"]
