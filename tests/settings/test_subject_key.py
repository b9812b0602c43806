"""The key by which logs hash users: made once, for its owner alone, beside the embedded queue."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from notifier.model.errors import ConfigurationError
from notifier.settings.service_settings import Settings
from notifier.settings.subject_key import is_missing, make_subject_key, read_subject_key, short_key_mistake


def settings_of(folder: Path, url: str = "sqlite:n.db", **log: object) -> Settings:
    """As a file in this folder says it."""
    return Settings.model_validate({"queue": {"url": url}, "log": log}, context={"base": folder})


def test_it_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask; the next start keeps it."""
    settings = settings_of(tmp_path)
    assert read_subject_key(settings) is None
    file = make_subject_key(settings)
    assert file == tmp_path / "n.db.subject-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = read_subject_key(settings)
    assert key is not None
    assert len(key) == 64
    make_subject_key(settings)
    assert read_subject_key(settings) == key
    assert [each.name for each in tmp_path.iterdir()] == ["n.db.subject-key"]


def test_of_many_that_start_at_once_one_makes_it(tmp_path: Path) -> None:
    """All read the same key, and never half of one."""
    settings = settings_of(tmp_path)

    def start(_: int) -> str | None:
        make_subject_key(settings)
        return read_subject_key(settings)

    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(start, range(64)))
    assert len(keys) == 1
    assert len(keys.pop() or "") == 64


@pytest.mark.parametrize(
    ("url", "log", "missing"),
    [
        ("sqlite:n.db", {"subject": "omit"}, False),
        ("sqlite:n.db", {"subject_key": "configured"}, False),
        ("amqp://mq/", {}, True),
        ("amqp://mq/", {"subject": "raw"}, False),
        ("amqp://mq/", {"subject_key": "configured"}, False),
    ],
)
def test_none_is_made_where_none_is_needed_or_all_workers_need_one(
    tmp_path: Path, url: str, log: dict[str, object], missing: bool
) -> None:
    """What is configured stands; on RabbitMQ somebody must give all workers the same."""
    settings = settings_of(tmp_path, url, **log)
    make_subject_key(settings)
    assert is_missing(settings) == missing
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("log", "warned"),
    [
        ({"subject_key": "k" * 15}, "log.subject_key"),
        ({"subject_key": "ü" * 8}, None),
        ({"subject_key": "k" * 16}, None),
        ({"subject_key_file": "short"}, "log.subject_key_file"),
        ({"subject_key_file": "short", "subject": "omit"}, None),
        ({"subject_key_file": "short", "subject": "raw"}, None),
        ({}, None),
    ],
)
def test_a_key_that_can_be_guessed_is_named(tmp_path: Path, log: dict[str, object], warned: str | None) -> None:
    """A key below 16 bytes hides nobody from whoever has the logs; it is shown only by its length."""
    (tmp_path / "short").write_text("hunter2\n")
    warning = short_key_mistake(settings_of(tmp_path, "amqp://mq/", **log))
    assert (None if warning is None else warning.path) == warned
    assert "hunter2" not in str(warning)


def test_a_key_that_was_made_and_emptied_is_refused(tmp_path: Path) -> None:
    """Nothing is hashed with an empty key; the text names the file."""
    settings = settings_of(tmp_path)
    file = make_subject_key(settings)
    assert file is not None
    file.write_text("\n")
    with pytest.raises(ConfigurationError, match=r"n\.db\.subject-key: is empty; write a key into it"):
        read_subject_key(settings)
