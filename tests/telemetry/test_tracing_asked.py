"""When traces are written: where the configuration or the standard environment asks for them, and nowhere else."""

import pytest

from notifier.service.builders import build_tracing
from notifier.settings.service_settings import Settings


@pytest.mark.parametrize(
    "environ",
    [{}, {"OTEL_SERVICE_NAME": "x"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}],
)
def test_nobody_asks(environ: dict[str, str]) -> None:
    """No observer, so no cost."""
    assert build_tracing(Settings(), environ) is None


def test_a_section_asks() -> None:
    """Even an empty one."""
    assert build_tracing(Settings.model_validate({"tracing": {}}), {}) is not None
