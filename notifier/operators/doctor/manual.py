"""Reads the pages of this package, which are copied to docs/: the runbook, and the reference of settings.

`runbook.md` has a section for each reason, cause and alert. `configuration.md` and the pages of `configuration/` have a
row for each setting.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

_HEADING = re.compile(r"^(##|###) (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunbookSection:
    """The section of one reason, cause or alert. `group` is the heading above it; `text` is Markdown."""

    name: str
    group: str
    text: str


def read_page(name: str) -> str:
    """Return a page of this package, as Markdown."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def load_runbook() -> str:
    """Return the whole runbook, as Markdown."""
    return read_page("runbook.md")


def parse_sections() -> dict[str, RunbookSection]:
    """Return the sections in the order of the runbook, by name in lower case."""
    text = load_runbook()
    headings = list(_HEADING.finditer(text))
    sections: dict[str, RunbookSection] = {}
    group = ""
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == "##":
            group = heading[2]
            continue
        end = len(text) if following is None else following.start()
        body = text[heading.end() : end].strip() + "\n"
        sections[heading[2].lower()] = RunbookSection(name=heading[2], group=group, text=body)
    return sections


PAGES = ("service", "issuers", "sources-and-browsers", "clients", "registry-sources")
_PREFIX = "NOTIFIER_"
_RESTARTS = ("no", "yes", "to name another")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingText:
    """A setting of the service or of a client. `default` and `meaning` are Markdown.

    `restart` is `yes` if a change needs a restart, `to name another` if only the name of another file needs one, and
    otherwise empty.
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
    """Yield all settings, in the order of the reference."""
    for line in load_reference().splitlines():
        cells = line.strip("| ").split(" | ")
        if not line.startswith("| `") or len(cells) < 4 or not cells[1][:1].isalpha():
            continue  # not a row of a setting, whose second cell is a type
        name, value_type, default, *other_cells = cells
        restart = other_cells.pop(0) if other_cells[0] in _RESTARTS else "no"
        yield SettingText(
            name=name.strip("`"), type=value_type, default=default, restart="" if restart == "no" else restart,
            meaning=" | ".join(other_cells),
        )  # fmt: skip


def find_settings(name: str) -> list[SettingText]:
    """Return the setting of this name. If there is none, return all settings of the section of this name.

    A last part `file` that no setting has is left out: it names the file of a secret.
    `name` is a path in a configuration file, a path in an error message (`issuers["https://id.example.com"].keys[0].file`,
    `clients.yaml[0] (shop).notifier.timeout`), or an environment variable.
    """
    path = _parse_path(name)
    settings = [(setting, _parse_path(setting.name)) for setting in list_settings()]
    matches = [(setting, setting_path) for setting, setting_path in settings if _is_prefix(path, setting_path)]
    exact = [setting for setting, setting_path in matches if len(setting_path) == len(path)]
    if not exact and path[-1:] == ["file"]:  # of a secret that a file contains, such as `proxy: {file: PATH}`
        exact = [setting for setting, setting_path in matches if len(setting_path) == len(path) - 1]
    if exact or not path:
        return exact
    return [setting for setting, setting_path in matches if len(setting_path) > len(path)]


def _parse_path(name: str) -> list[str]:
    """Return the names in the path of a setting, without numbers of list entries and without the clients' file.

    An issuer in brackets and quotes is replaced by `x`. See `find_settings` for the forms of `name`.
    """
    if name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX).lower().replace("__", ".")
    name = name.rpartition(").")[2]  # without `clients.yaml[0] (shop).`
    head, quote, tail = name.partition('["')
    plain = head + ".x" + tail.partition('"]')[2] if quote else head
    parts = [part for part in plain.replace("[", ".").replace("]", "").split(".") if part and not part.isdigit()]
    if parts[:2] == ["registry", "defaults"]:  # per issuer: the members that clients have under `notifier`
        return ["notifier", *parts[3:]]
    return parts


def _is_prefix(path: Sequence[str], setting_path: Sequence[str]) -> bool:
    """Return True if the paths have the same names up to the end of the shorter one. `<…>` in a setting is any name."""
    return all(name.startswith("<") or part == name for part, name in zip(path, setting_path, strict=False))
