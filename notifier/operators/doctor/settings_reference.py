"""Reads the reference of settings: `configuration.md` and `configuration/`, copied to docs/. A row for each setting."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

PAGES = ("service", "issuers", "sources-and-browsers", "clients", "registry-sources")
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


def load_reference() -> str:
    """Return docs/configuration.md and the pages of docs/configuration, as Markdown."""
    folder = resources.files(__package__)
    paths = [folder / "configuration.md", *(folder / "configuration" / f"{page}.md" for page in PAGES)]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def list_settings() -> Iterator[SettingText]:
    """Return all settings, in the order of the reference."""
    for line in load_reference().splitlines():
        cells = line.strip("| ").split(" | ")
        if not line.startswith("| `") or len(cells) < 4 or not cells[1][:1].isalpha():
            continue
        name, kind, default, *more = cells
        restart = more.pop(0) if more[0] in _RESTARTS else "no"
        yield SettingText(
            name=name.strip("`"), type=kind, default=default, restart="" if restart == "no" else restart,
            meaning=" | ".join(more),
        )  # fmt: skip


def find_settings(name: str) -> list[SettingText]:
    """Return the setting of this name, else all below it.

    `name` is as a file has it, as an error names it (`issuers["https://id.example.com"].keys[0].file`,
    `clients.yaml[0] (shop).notifier.timeout`), or an environment variable.
    """
    parts, everything = _parse_name(name), [(setting, _parse_name(setting.name)) for setting in list_settings()]
    exact = [setting for setting, names in everything if len(names) == len(parts) and _is_match(parts, names)]
    if not exact and parts[-1:] == ["file"]:  # a secret in a file: `proxy: {file: PATH}`
        exact = [setting for setting, names in everything if len(names) == len(parts) - 1 and _is_match(parts, names)]
    return exact or [
        setting for setting, names in everything if len(names) > len(parts) > 0 and _is_match(parts, names)
    ]


def _parse_name(name: str) -> list[str]:
    """The names on the way to a setting, without the numbers of entries and the file of the clients."""
    if name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX).lower().replace("__", ".")
    name = name.rpartition(").")[2]
    head, quoted, rest = name.partition('["')
    plain = head + (".x" + rest.partition('"]')[2] if quoted else "")
    parts = [part for part in plain.replace("[", ".").replace("]", "").split(".") if part and not part.isdigit()]
    return ["notifier", *parts[3:]] if parts[:2] == ["registry", "defaults"] else parts


def _is_match(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the names begin so. `<name>` stands for any."""
    return all(name.startswith("<") or part == name for part, name in zip(parts, names, strict=False))
