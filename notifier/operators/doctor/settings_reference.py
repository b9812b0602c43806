"""Reads the reference of settings. Its text is `configuration.md`, copied to docs/: one row for each setting."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

_PREFIX = "NOTIFIER_"
_RESTARTS = ("no", "yes", "to name another")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingText:
    """A setting of the service's file, or of a client. `default` and `meaning` are Markdown.

    `restart`: `yes` if a worker reads it once; `to name another` if it reads its file again; else empty.
    """

    name: str
    type: str
    default: str
    restart: str
    meaning: str


def reference() -> str:
    """Return the whole of docs/configuration.md, as Markdown."""
    return (resources.files(__package__) / "configuration.md").read_text(encoding="utf-8")


def settings() -> Iterator[SettingText]:
    """Return all settings, in the order of the reference."""
    for line in reference().splitlines():
        cells = line.strip("| ").split(" | ")
        if not line.startswith("| `") or len(cells) < 4 or not cells[1][:1].isalpha():
            continue
        name, kind, default, *more = cells
        restart = more.pop(0) if more[0] in _RESTARTS else "no"
        yield SettingText(
            name=name.strip("`"), type=kind, default=default, restart="" if restart == "no" else restart,
            meaning=" | ".join(more),
        )  # fmt: skip


def settings_called(name: str) -> list[SettingText]:
    """Return the setting of this name, else all below it.

    `name` is as a file has it, as an error names it (`issuers["https://id.example.com"].keys[0].file`), or an
    environment variable.
    """
    if name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX).lower().replace("__", ".")
    parts, everything = _parts(name), [(setting, _parts(setting.name)) for setting in settings()]
    exact = [setting for setting, names in everything if len(names) == len(parts) and _fits(parts, names)]
    return exact or [setting for setting, names in everything if len(names) > len(parts) > 0 and _fits(parts, names)]


def _parts(name: str) -> list[str]:
    """The names on the way to a setting, without the numbers of entries."""
    head, quoted, rest = name.partition('["')
    plain = head + (".x" + rest.partition('"]')[2] if quoted else "")
    return [part for part in plain.replace("[", ".").replace("]", "").split(".") if part and not part.isdigit()]


def _fits(parts: list[str], names: list[str]) -> bool:
    """Whether the names begin so. `<name>` stands for any."""
    return all(name.startswith("<") or part == name for part, name in zip(parts, names, strict=False))
