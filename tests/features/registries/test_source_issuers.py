"""Whose clients a source may have, where its kind says it."""

from pathlib import Path

from tests.configuration.clients.registry_sample import ONE, TWO, mistakes


def test_issuers_of_sources(tmp_path: Path) -> None:
    """A source's issuer is one of ours, whether a setting names it or the kind tells it."""
    sources = [
        {"name": "a", "issuer": "https://id.example.co", "http": {"url": "https://id.example.com/clients"}},
        {"name": "b", "sql": {"url": "sqlite:///x", "preset": "duende"}},
        {"name": "c", "sql": {"url": "sqlite:///x", "query": "SELECT issuer, client_id FROM c"}},
        {"name": "d", "keycloak": {
            "url": "https://kc.example.com", "realm": "a b", "client_id": "n", "client_secret": "s"
        }},
    ]  # fmt: skip
    registry = {"sources": sources, "defaults": {"https://kc.example.com/realms/a": {"timeout": "3s"}}}
    found = mistakes(tmp_path, "[]", ONE, TWO, registry=registry)
    assert list(found) == [
        *(f"registry.sources[{nth}].issuer" for nth in range(4)),
        'registry.defaults["https://kc.example.com/realms/a"]',
    ]  # fmt: skip
    assert f"did you mean {ONE}?" in found["registry.sources[0].issuer"]
    assert "2 issuers" in found["registry.sources[1].issuer"]
    assert "https://kc.example.com/realms/a%20b is not" in found["registry.sources[3].issuer"]
