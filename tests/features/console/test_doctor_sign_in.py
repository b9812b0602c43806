"""What the doctor says of the provider at which operators sign in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from notifier.features.console.doctor_sign_in import SETTING, sign_in_checks
from notifier.network.http.issuer_documents import DocumentReader
from tests.features.console.console_provider import ConsoleProvider, live, oidc, written


async def said(folder: Path, section: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Level and text of each finding."""
    reader = DocumentReader()
    checks = list(sign_in_checks(live(written(folder, section)).now.settings, reader))
    findings = [finding for check in checks for finding in await check.run()]
    await reader.close()
    assert {finding.subject for finding in findings} <= {SETTING}
    return [(finding.level.value, finding.text) for finding in findings]


async def test_a_good_provider_has_two_lines(tmp_path: Path) -> None:
    """Where they sign in, and how many keys there are."""
    async with ConsoleProvider() as provider:
        found = await said(tmp_path, oidc(provider.base))
    assert found == [
        ("ok", f"operators sign in at {provider.base}/authorize"),
        ("ok", "1 key for its tokens can be read"),
    ]


@pytest.mark.parametrize(
    ("provided", "text"),
    [
        ({"metadata": {"issuer": "https://other.example.com"}}, "name the issuer 'https://other.example.com'"),
        ({"metadata": {"token_endpoint": None}}, "name no token_endpoint"),
        ({"metadata": {"jwks_uri": None}}, "name no jwks_uri"),
        ({"keys": []}, "has no key that verifies signatures"),
    ],
)
async def test_a_fault_is_said(tmp_path: Path, provided: Mapping[str, Any], text: str) -> None:
    """Before an operator meets it in an incident."""
    async with ConsoleProvider() as provider:
        for name, value in provided.items():
            setattr(provider, name, value)
        found = await said(tmp_path, oidc(provider.base))
    assert found[-1][0] == "failed"
    assert text in found[-1][1]


async def test_without_a_provider_there_is_nothing_to_check(tmp_path: Path) -> None:
    """As with tokens alone."""
    assert await said(tmp_path, None) == []
