"""What the chart makes of each file of values, made once a session."""

from collections.abc import Mapping

import pytest

from tools.chart_rendering import VALUE_FILES, Rendered


@pytest.fixture(scope="session")
def every() -> Mapping[str, Rendered]:
    """By the name of the file of values."""
    return {name: Rendered.of(name) for name in VALUE_FILES}


@pytest.fixture(params=VALUE_FILES)
def rendered(request: pytest.FixtureRequest, every: Mapping[str, Rendered]) -> Rendered:
    """One after the other."""
    name: str = request.param
    return every[name]
