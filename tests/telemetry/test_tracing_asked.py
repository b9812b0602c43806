"""When traces are written: where the standard environment asks for them, and nowhere else."""

import pytest

from notifier.service.run_command import build_tracing


@pytest.mark.parametrize(
    "environ",
    [{}, {"OTEL_SERVICE_NAME": "x"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}],
)
def test_nobody_asks(environ: dict[str, str]) -> None:
    """No observer, so no cost."""
    assert build_tracing(environ) is None


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_the_environment_asks(name: str) -> None:
    """By OpenTelemetry's own variables."""
    assert build_tracing({name: "http://127.0.0.1:4318"}) is not None
