"""What a feature needs of the service, beside the configuration and the queue, is a Protocol in its folder."""

from pathlib import Path
from pkgutil import resolve_name

import pytest

from notifier.configuration.live_configuration import LiveConfiguration
from notifier.configuration.loading import load
from notifier.delivery.facts import Observer
from notifier.feature import Feature
from notifier.features import FEATURES
from notifier.features.browsers.front_channel_counts import ClientLabels
from notifier.features.browsers.sign_out_routes import EventRequestHandler
from notifier.features.browsers.web_pages import WebPages
from notifier.features.upstreams.upstream_intake import FactObserver
from notifier.features.upstreams.upstream_sign_outs import SignOutPage
from notifier.publishing.event_requests import EventRequests
from notifier.service.service import Service
from notifier.telemetry.metrics import Metrics
from tests.tokens.key_folder import pem


def _passed(
    metrics: Metrics, requests: EventRequests, observe: Observer, pages: WebPages
) -> tuple[ClientLabels, EventRequestHandler, FactObserver, SignOutPage]:
    """Return what the service passes for each need. mypy compares it with the Protocols."""
    return metrics, requests, observe, pages.page_of


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_each_need_is_a_protocol_of_the_features_folder(feature: Feature) -> None:
    """By its name, so that nothing is imported before a worker asks for it."""
    for need in feature.needs:
        assert need.startswith(f"notifier.features.{feature.name}.")
        assert getattr(resolve_name(need), "_is_protocol", False)


def test_a_need_that_the_service_does_not_have_is_an_error_at_the_start(tmp_path: Path) -> None:
    """It names the feature and the need, before anything is opened."""
    path = tmp_path / "notifier.yaml"
    (tmp_path / "key.pem").write_bytes(pem("ES256"))
    path.write_text("issuers: {'https://id.example.com': {keys: [{file: key.pem}]}}")
    live = LiveConfiguration(path, {}, load(path, {}, ()))
    quiet = Feature(name="quiet", needs=("notifier.features.quiet.last_events:Alarms",))
    with pytest.raises(LookupError, match=r"feature quiet needs .*\.last_events:Alarms: pass it in"):
        Service(live, features=(quiet,))
