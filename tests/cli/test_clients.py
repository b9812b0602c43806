"""`clients show` says of each value where it comes from."""

from pathlib import Path

from tests.cli.registry_files import ISS, URI, made, origins, write


def test_each_value_has_its_origin(tmp_path: Path) -> None:
    """Also within a section of `notifier`, of which a later source replaces all and `registry.defaults` fill up."""
    folder = made(tmp_path)
    defaults = {"timeout": "9s", "retry": {"base": "3s", "max_delay": "9m"}, "success_statuses": [299, 298]}
    registry = {"sources": [{"name": n, "file": f"{n}.yaml"} for n in ("a", "b")], "defaults": {ISS: defaults}}
    first = {"timeout": "7s", "retry": {"base": "1s", "max_delay": "8m"}}
    shop = {"client_id": "s-1", "issuer": ISS, "aliases": ["shop"], "backchannel_logout_uri": URI, "notifier": first}
    write(folder, registry, a=[shop], b=[{"client_id": "s-1", "notifier": {"retry": {"base": "2s"}}}])
    found = origins(folder)
    assert found["aliases"] == (["shop"], "a (a.yaml)")
    assert found["backchannel_logout_uri"] == (URI, "a (a.yaml)")
    assert found["notifier.timeout"] == ("7s", "a (a.yaml)")
    assert found["notifier.retry.base"] == ("2s", "b (b.yaml)")
    assert found["notifier.retry.max_delay"] == ("9m", "registry.defaults")
    assert sorted(found["notifier.success_statuses"][0]) == [298, 299]  # type: ignore[call-overload]
    assert "notifier.retry" not in found
