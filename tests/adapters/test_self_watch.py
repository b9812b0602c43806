"""What a worker says of itself: how late its loop is, and when its certificates run out."""

import datetime as dt
from pathlib import Path

from notifier.adapters.certificates import expiries, presented
from notifier.app.self_watch import KEPT, LoopLag
from notifier.domain.client import Client, Route, TlsFiles
from notifier.domain.registry import Issuer, Registry
from notifier.settings import Settings
from tests.certificates import authority


def test_the_worst_lateness_is_told_until_every_scraper_has_seen_it() -> None:
    """It stays for KEPT seconds at least, and is forgotten after twice as long."""
    lag = LoopLag(100.0)
    lag.note(0.01, 100.5)
    assert lag.worst == 0.01
    lag.note(2.0, 101.0)
    lag.note(0.0, 101.0 + KEPT)
    assert lag.worst == 2.0
    lag.note(0.0, 101.0 + 2 * KEPT)
    assert lag.worst == 0.0


def test_certificates_that_we_present_are_known_with_their_ends(tmp_path: Path) -> None:
    """The listener's, the broker's and each client's; a file that cannot be read is left out."""
    pem = authority(tmp_path).issue("localhost")
    settings = Settings.model_validate(
        {
            "queue": {"url": "amqps://localhost/", "tls": {"cert_file": pem, "key_file": pem}},
            "api": {"listen": "127.0.0.1:0", "tls": {"cert_file": pem, "key_file": pem}},
        }
    )
    (tmp_path / "broken.pem").write_text("no certificate")

    def client(name: str, file: Path) -> Client:
        return Client(
            iss="i", client_id=name, backchannel_logout_uri="https://a/", route=Route(tls=TlsFiles(cert_file=file))
        )

    clients = {"shop": client("shop", pem), "mail": client("mail", tmp_path / "broken.pem")}
    found = expiries(presented(settings, Registry(issuers={"i": Issuer(iss="i")}, clients={"i": clients})).items())
    assert sorted((use, file) for use, file, _ in found) == [(use, str(pem)) for use in ("api", "client", "queue")]
    tomorrow = dt.datetime.now(dt.UTC).timestamp() + 86_400
    assert all(abs(moment - tomorrow) < 3600 for _, _, moment in found)
