"""Keys in a PKCS#11 token: a real SoftHSM, and a module in front of it that fails as HSMs do.

Each key starts processes, so what a change elsewhere does not touch runs in `make test-all` alone.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from notifier.configuration.loading import find_shared_keys, key_sources
from notifier.features.signers.key_kinds import key_kinds
from notifier.model.client import ED25519_NAMES, Algorithm
from notifier.model.errors import InternalFault
from notifier.settings.key_settings import SigningSettings
from notifier.tokens.external_key import ExternalKey
from notifier.tokens.key_files import examine_keys
from notifier.tokens.key_ring import ExternalKeyEntry, KeyRing
from notifier.tokens.signer import SignatureResult
from notifier.tokens.signers import Signers
from tests.settings.whole_settings import KEY_SETTINGS, SETTINGS
from tests.support.softhsm import PIN, TOKEN, FaultyModule, SoftHsm
from tests.support.verifier import verify
from tests.tokens.key_folder import ISS, NOW
from tests.tokens.test_keys import claims

CURVES = {"ec384": {Algorithm.ES384}, "ec521": {Algorithm.ES512}, "ED25519": ED25519_NAMES}
LONG = 30.0  # seconds for one signature, on a busy machine


def full(*values: object) -> ParameterSet:
    """A case of `make test-all` alone."""
    return pytest.param(*values, marks=pytest.mark.full)


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """Create one token for all tests of this module."""
    made = SoftHsm(tmp_path_factory.mktemp("hsm"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environ.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture(scope="module")
def module_in_front(hsm: SoftHsm) -> Iterator[FaultyModule]:
    """Compile the faulty module once."""
    made = hsm.faulty()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAULTY_MODULE", hsm.environ["FAULTY_MODULE"])
        yield made


@pytest.fixture
def faulty(module_in_front: FaultyModule) -> FaultyModule:
    """The module in front, well, with no login yet."""
    module_in_front.start_over()
    return module_in_front


@asynccontextmanager
async def keys(
    *pkcs11: dict[str, object], concurrency: int = 2, within: float = LONG
) -> AsyncIterator[tuple[KeyRing, list[ExternalKey]]]:
    """Yield a ring of these keys, and the keys, whose public keys were read once."""
    places, signing = Signers(key_kinds(), timeout=within), SigningSettings(concurrency=concurrency)
    external_key = [places.key(KEY_SETTINGS.model_validate({"pkcs11": each}), signing) for each in pkcs11]
    ring = KeyRing({ISS: [ExternalKeyEntry(external_key=each, setting="") for each in external_key]}, lambda: NOW)
    try:
        await ring.check()
        yield ring, external_key
    finally:
        await ring.close()
        assert children() == []


def children() -> list[int]:
    """Return this process's signing processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, stat = (path / "cmdline").read_text(), (path / "stat").read_text()
        except OSError:
            continue
        if "pkcs11_process.py" in words and int(stat.rpartition(")")[2].split()[1]) == os.getpid():
            found.append(int(path.name))
    return found


def well(key: ExternalKey) -> bool:
    return key.fault is None


def shown(pid: int) -> list[str]:
    """What everybody who may look sees of a process: its arguments and its environment."""
    folder = Path(f"/proc/{pid}")
    return (folder / "cmdline").read_text().split("\0") + (folder / "environ").read_text().split("\0")


async def test_a_token_s_keys_sign(hsm: SoftHsm) -> None:
    """By RSA and by a curve; the signatures verify elsewhere."""
    async with keys(*map(hsm.settings, ("rsa", "ec"))) as (ring, _):
        for alg in (Algorithm.RS256, Algorithm.PS256, Algorithm.ES256):
            await signs(ring, alg)


async def signs(ring: KeyRing, alg: Algorithm) -> None:
    """A strict verifier of another library accepts its token."""
    token = await ring.sign(ISS, alg, "logout+jwt", claims())
    assert verify(token, ring.jwks(ISS), iss=ISS, aud="shop", now=NOW, typ="logout+jwt", algs=[alg]) == claims()


@pytest.mark.full
async def test_every_algorithm_that_the_token_has_verifies_elsewhere(hsm: SoftHsm) -> None:
    """Each by a key of its curve: tokens that a strict verifier of another library accepts."""
    for number, label in enumerate(CURVES):
        hsm.new_key(label, f"2{number}")
    async with keys(*map(hsm.settings, ("rsa", "ec", *CURVES))) as (ring, external_key):
        assert [set(key.algorithms) for key in external_key[2:]] == [*CURVES.values()]
        for alg in Algorithm:
            await signs(ring, alg)


@pytest.mark.full
async def test_an_ed25519_key_that_was_made_in_the_token_signs(hsm: SoftHsm) -> None:
    """Its point is in an OCTET STRING, where that of an imported key is bare; tokens differ as SoftHSM does."""
    hsm.new_ed25519("made", "31")
    async with keys(hsm.settings("made")) as (ring, [key]):
        assert key.algorithms == ED25519_NAMES
        await signs(ring, Algorithm.ED25519)


@pytest.mark.full
async def test_a_curve_that_cannot_be_used_is_named(hsm: SoftHsm) -> None:
    """Ed448 is not supported."""
    hsm.new_key("ED448", "30")
    async with keys(hsm.settings("ED448")) as (_, [key]):
        assert key.fault is not None
        assert key.fault.result is SignatureResult.WRONG
        assert key.fault.text == "is of another Edwards curve than Ed25519, which cannot be used"


@pytest.mark.full
async def test_the_processes_are_as_many_as_was_set_and_show_no_pin(hsm: SoftHsm) -> None:
    """Two keys of one token share them. Neither arguments nor environment have the PIN."""
    async with keys(hsm.settings("rsa"), hsm.settings("ec")) as (ring, _):
        assert len(children()) == 2
        await asyncio.gather(*(ring.sign(ISS, Algorithm.RS256, None, claims()) for _ in range(50)))
        assert len(children()) == 2
        for words in map(shown, children()):
            assert words
            assert not [word for word in words if word == PIN or word.endswith(f"={PIN}") or "NOTIFIER_" in word]


async def test_a_wrong_pin_is_tried_once_until_its_file_changes(
    hsm: SoftHsm, faulty: FaultyModule, tmp_path: Path
) -> None:
    """Tokens lock after a few. All keys of the token share the one try."""
    pin = tmp_path / "pin"
    pin.write_text("9999")
    wrong = {"pin_file": str(pin)}
    async with keys(hsm.settings("rsa", faulty.path, **wrong), hsm.settings("ec", faulty.path, **wrong)) as (
        ring,
        external_key,
    ):
        for _ in range(3):
            await ring.check()
        assert faulty.logins == 1
        for key in external_key:
            assert key.fault is not None
            assert key.fault.result is SignatureResult.WRONG
            assert f"the PIN is wrong; it is not tried again until {pin} changes" in key.fault.text
        pin.write_text(PIN)
        await ring.check()
        assert all(map(well, external_key))
        assert faulty.logins == 3  # one for each process
        assert await ring.sign(ISS, Algorithm.RS256, None, claims())


@pytest.mark.parametrize(
    ("fault", "result", "text"),
    [
        ("crash", SignatureResult.AWAY, "its process ended by signal 11; another is started"),
        full("hang", SignatureResult.SLOW, "no answer within 2s"),
        full("error", SignatureResult.AWAY, "the module answered DeviceError; its process is started anew"),
        full("forget", SignatureResult.AWAY, "the module answered SessionHandleInvalid; its process is started anew"),
        full("lie", SignatureResult.UNVERIFIED, "its signature by RS256 does not verify, and is not used"),
    ],
)
async def test_a_fault_of_the_module_is_a_deferral_and_ends_by_itself(
    hsm: SoftHsm, faulty: FaultyModule, fault: str, result: SignatureResult, text: str
) -> None:
    """Nobody else asks it until a look finds it well again, in another process where the session is in doubt."""
    within = 2.0 if fault == "hang" else LONG
    async with keys(hsm.settings("rsa", faulty.path), concurrency=1, within=within) as (ring, [key]):
        assert well(key)
        before = children()
        faulty.be(fault)
        for _ in range(3):
            with pytest.raises(InternalFault, match=text):
                await ring.sign(ISS, Algorithm.RS256, None, claims())
        assert key.fault is not None
        assert key.fault.result is result
        faulty.be("well")
        await key.check()
        assert well(key)
        assert await ring.sign(ISS, Algorithm.RS256, None, claims())
        assert (children() == before) == (fault == "lie")


@pytest.mark.full
async def test_an_idle_process_that_was_killed_is_replaced(hsm: SoftHsm) -> None:
    """The next signature starts another."""
    async with keys(hsm.settings("ec")) as (ring, [key]):
        sessions = key._backend._token._sessions.copy()  # type: ignore[attr-defined]
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while any(session.is_running for session in sessions):  # noqa: ASYNC110  no event reports it
                await asyncio.sleep(0.01)
        assert await ring.sign(ISS, Algorithm.ES256, None, claims())
        assert well(key)


@pytest.mark.full
async def test_a_removed_token_is_used_again_when_it_returns(hsm: SoftHsm) -> None:
    """Its old session stays invalid: the process is restarted."""
    async with keys(hsm.settings("rsa")) as (ring, [key]):
        away = hsm.tokens.with_name("away")
        hsm.tokens.rename(away)
        hsm.tokens.mkdir()
        with pytest.raises(InternalFault):
            await ring.sign(ISS, Algorithm.RS256, None, claims())
        await key.check()
        assert key.fault is not None
        assert "the module has no token 'idp'; it has " in key.fault.text
        hsm.tokens.rmdir()
        away.rename(hsm.tokens)
        await key.check()
        assert well(key)
        assert await ring.sign(ISS, Algorithm.RS256, None, claims())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"label": "none"}, "has no such private key"),
        full({"token": "other"}, f"the module has no token 'other'; it has '{TOKEN}'"),  # not the slot that is free
        full({"label": "rsa", "id": "02"}, "has no such private key"),
        full({"module": __file__}, "the module cannot be loaded"),
    ],
)
async def test_what_is_wrong_in_the_configuration_is_named(hsm: SoftHsm, change: dict[str, object], text: str) -> None:
    """It differs from an unavailable HSM."""
    async with keys({**hsm.settings("rsa"), **change}) as (_, [key]):
        assert key.fault is not None
        assert key.fault.result is SignatureResult.WRONG
        with pytest.raises(AssertionError, match=text):
            raise AssertionError(key.fault.text)


@pytest.mark.full
async def test_two_keys_of_one_label_need_an_id(hsm: SoftHsm) -> None:
    """The first that comes would be chance."""
    hsm.new_key("twice", "11")
    hsm.new_key("twice", "12")
    async with keys(hsm.settings("twice"), hsm.settings("twice", id="12")) as (_, [ambiguous, named]):
        assert ambiguous.fault is not None
        assert ambiguous.fault.text == "has 2 such private keys; name one by its label and its id"
        assert named.fault is None


async def test_issuers_with_one_key_of_a_token_are_named(hsm: SoftHsm) -> None:
    """By its public half, once the token was asked, under whatever name each issuer has it."""
    found = SETTINGS.model_validate(
        {
            "issuers": {
                "https://a": {"keys": [{"pkcs11": hsm.settings("ec")}]},
                "https://b": {"keys": [{"pkcs11": hsm.settings("rsa")}]},
                "https://c": {"keys": [{"pkcs11": hsm.settings("ec", id="02"), "kid": "mine"}]},
            }
        }
    )
    sources, _ = key_sources(found, {iss: issuer.keys for iss, issuer in found.issuers.items()}, Signers(key_kinds()))
    ring, _ = examine_keys(sources)
    assert list(find_shared_keys(found, ring)) == []
    assert await ring.check() == []
    await ring.close()
    (warning,) = find_shared_keys(found, ring)
    assert warning.path == 'issuers["https://c"].keys'
    assert warning.text.startswith("the key mine is that of https://a, too")
