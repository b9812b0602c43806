"""The commands `notifier keys`: create a key for signing or for pages, and print the keys that the issuer publishes."""

import os
import time
from pathlib import Path
from typing import Annotated

import typer
from cryptography.fernet import Fernet

from notifier.configuration.configured_feature import key_kinds_of, settings_model
from notifier.configuration.loading import read_keys
from notifier.features import FEATURES
from notifier.model.client import Algorithm
from notifier.model.durations import DAY_SECONDS
from notifier.model.errors import ConfigurationError
from notifier.model.moment import format_moment_for_people, parse_moment
from notifier.model.printable import json_text
from notifier.operators.terminal.command_options import Config, check_keys
from notifier.operators.terminal.help import command, command_group
from notifier.operators.terminal.output import say, say_json
from notifier.settings.config_file import read_sections
from notifier.tokens.key_files import KeySource, generate_key, load_key
from notifier.tokens.signers import Signers

app = typer.Typer()
NewFile = Annotated[Path | None, typer.Option(dir_okay=False, help="The file; it must not exist. Default: stdout.")]


@command_group(app)
def _group() -> None:
    """Make signing keys and keys of pages, and print what the issuer must publish.

    Examples:
        # 1. make a key; the line that it prints goes under issuers.<iss>.keys
        notifier keys generate --alg ES256 --out keys/2026.pem
        # 2. let the issuer's JWK Set hold its public half
        notifier keys jwks -c n.yaml > jwks.json
    """


@command(app)
def generate(
    alg: Annotated[Algorithm, typer.Option(help="The algorithm. RSA keys have 2048 bits.")] = Algorithm.RS256,
    out: NewFile = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|once",
            help="From when on it signs (RFC 3339); once: now, for a first try. Default: in a day, so that receivers"
            " that keep the issuer's keys know it by then.",
        ),
    ] = None,
) -> None:
    """Make a private signing key, as unencrypted PEM (PKCS#8). Print the line by which the configuration names it.

    Examples:
        # into a file that only you may read
        notifier keys generate --alg ES256 --out k.pem
        # for a first try
        notifier keys generate --out k.pem --at once
        # straight into a secret store
        notifier keys generate | vault kv put secret/notifier key=-
    """
    not_before = _parse_not_before(at)
    pem = generate_key(alg)
    if out is None:
        say(pem.decode(), nl=False)
        return
    _write_key(out, pem)
    say(f"{out}: a key for {alg}, kid {load_key(KeySource(path=out)).kid}")
    if not_before is None:
        say(f"under issuers.<iss>.keys:  - {{file: {json_text(str(out))}}}")
        say("It signs at once. Receivers that keep the issuer's keys (.NET's: 12 h) refuse it until they know it.")
    else:
        say(f"under issuers.<iss>.keys:  - {{file: {json_text(str(out))}, not_before: {not_before}}}")
        say("Publish it now (`notifier keys jwks`), so that receivers know it by then. `--at once` is for a first try.")


def _write_key(out: Path, key: bytes) -> None:
    """Write a key to a new file that only its owner may read. Raises BadParameter if the file exists."""
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise typer.BadParameter(f"{out} exists; a key is never overwritten.", param_hint="--out") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)


@command(app)
def web(
    out: NewFile = None,
) -> None:
    """Make a key for `web.keys_file`, or an issuer's own, by which the URLs of front-channel pages are sealed.

    The first line of that file seals, all lines open. To renew the key, add the new one as the second line and let all
    workers reload; then move it to the first line; after ten minutes, when no page of the old one can be opened, remove
    the old one. An identity server that seals URLs itself changes its key between these two steps.

    Examples:
        # into a file that only you may read
        notifier keys web --out web.keys
        # a second one, while the first still seals
        notifier keys web >> web.keys
    """
    key = Fernet.generate_key()
    if out is None:
        say(key.decode())
        return
    _write_key(out, key + b"\n")
    say(f"{out}: a key for web.keys_file, or web.issuers.<iss>.keys_file: {json_text(str(out))}")


def _parse_not_before(at: str | None) -> str | None:
    """Return the time of `--at` as a configuration has it, by default in a day; None for `once`."""
    if at == "once":
        return None
    if at is None:
        return _format_moment(time.time() + DAY_SECONDS)
    try:
        return _format_moment(parse_moment(at))
    except ValueError:
        text = "must be a time such as 2027-01-31T06:00:00Z, or once"
        raise typer.BadParameter(text, param_hint="--at") from None


def _format_moment(moment: float) -> str:
    return format_moment_for_people(moment).replace(" ", "T")


@command(app)
def jwks(
    config: Config = None,
    iss: Annotated[str | None, typer.Option("--iss", help="The issuer. Needed if there are several.")] = None,
) -> None:
    """Print the public halves of an issuer's keys as a JWK Set, for the issuer to publish.

    Keys whose not_before is still to come are included. Keys in an HSM or a key service are asked for there.

    Examples:
        # the only issuer's
        notifier keys jwks -c n.yaml > jwks.json
        # one of several
        notifier keys jwks -c n.yaml --iss https://id.example.com
    """
    settings = read_sections(config, os.environ, {"issuers", "signing"}, settings_model(FEATURES)).settings
    issuers = settings.issuers
    if iss is None and len(issuers) == 1:
        iss = next(iter(issuers))
    if iss is None or iss not in issuers:
        known = f"name one of {', '.join(issuers)}" if issuers else "the configuration has no issuers"
        text = f"there is not exactly one issuer; {known}" if iss is None else f"{iss} is not configured; {known}"
        raise typer.BadParameter(text, param_hint="--iss")
    ring, _, mistakes = read_keys(settings, {iss: issuers[iss].keys}, Signers(key_kinds_of(FEATURES)))
    if issues := mistakes or check_keys(ring):
        raise ConfigurationError(issues)
    say_json(ring.jwks(iss), indent=2)
