"""The setting `spool.folder`: what is refused at the start, and what the doctor reports."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from notifier.configuration.loading import LoadedConfiguration, load
from notifier.features import FEATURES
from notifier.features.spool.spool_feature import SPOOL
from notifier.model.errors import ConfigurationError
from notifier.network.http.issuer_documents import DocumentReader
from notifier.operators.doctor.doctor import Finding
from tests.tokens.key_folder import pem

ISS = "https://id.example.com"
RELAY: Mapping[str, Any] = {"relays": {"op": {}}, "web": {"listen": "127.0.0.1:0"}}


def loaded(folder: Path, url: str = "amqp://localhost", **sections: Any) -> LoadedConfiguration:
    """A configuration with a spool."""
    (folder / "key.pem").write_bytes(pem("ES256"))
    document = {
        "issuers": {ISS: {"keys": [{"file": "key.pem"}]}}, "queue": {"url": url}, "spool": {"folder": "spool"},
        **sections,
    }  # fmt: skip
    (folder / "notifier.yaml").write_text(json.dumps(document))
    return load(folder / "notifier.yaml", {}, FEATURES)


def test_the_embedded_queue_refuses_a_spool(tmp_path: Path) -> None:
    """It is a file itself."""
    with pytest.raises(ConfigurationError, match="spool: has no use with the embedded queue"):
        loaded(tmp_path, url="sqlite:q.db", **RELAY)


def test_a_spool_without_senders_is_a_warning(tmp_path: Path) -> None:
    """Publishers send again after a 503."""
    assert [warning.path for warning in loaded(tmp_path).warnings if warning.path == "spool"] == ["spool"]
    assert not [warning for warning in loaded(tmp_path, **RELAY).warnings if warning.path == "spool"]


def test_the_path_is_relative_to_the_configuration(tmp_path: Path) -> None:
    """As that of `registry.cache`; a change needs a restart."""
    current = loaded(tmp_path, **RELAY)
    assert current.settings.spool is not None
    assert current.settings.spool.folder == tmp_path / "spool"
    [fixed] = [part.fixed for part in current.parts if "spool.folder" in part.fixed]
    assert fixed == {"spool.folder": tmp_path / "spool"}


@pytest.mark.parametrize("wrong", ["file", "link", "loop", "others"])
def test_a_folder_that_another_user_may_have_written_to_is_refused(tmp_path: Path, wrong: str) -> None:
    """With the same text as `registry.cache`, here for events. A link must lead to a folder."""
    folder = tmp_path / "spool"
    text = "is a link that leads to no folder; it must be a folder, which is made if it is missing"
    if wrong == "file":
        folder.write_text("")
        text = "is a file; it must be"
    elif wrong == "others":
        for each in (folder, folder / "notifier"):
            each.mkdir()
            each.chmod(0o777)
        text = "so another user may have written its events: delete it"
    else:
        folder.symlink_to(folder if wrong == "loop" else tmp_path / "missing")
    with pytest.raises(ConfigurationError, match=rf"spool\.folder: .*{text}"):
        loaded(tmp_path, **RELAY)


async def findings(current: LoadedConfiguration) -> list[Finding]:
    """What the doctor reports."""
    reader = DocumentReader()
    found = [finding for check in SPOOL.checks(current, reader) for finding in await check.run()]
    await reader.close()
    return found


async def test_the_doctor_names_damaged_files_and_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """And is content with a folder that a worker will make."""
    current, folder = loaded(tmp_path, **RELAY), tmp_path / "spool"
    assert [finding.level for finding in await findings(current)] == ["ok"]
    folder.mkdir(mode=0o700)
    assert ["can be used" in finding.text for finding in await findings(current)] == [True]
    (folder / "a.corrupt").write_text("")
    assert [(finding.level, "a.corrupt" in finding.text) for finding in await findings(current)] == [("warning", True)]
    (folder / "a.corrupt").unlink()
    folder.chmod(0o777)
    (folder / "notifier").symlink_to(tmp_path)
    assert [(finding.level, "is a link" in finding.text) for finding in await findings(current)] == [("failed", True)]
    folder.rename(tmp_path / "former")
    folder.symlink_to(folder)
    assert [(finding.level, "is a link" in finding.text) for finding in await findings(current)] == [("failed", True)]
