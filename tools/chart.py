"""`make chart`: writes the generated files of `helm/notifier`.

These are `values.schema.json` (from `helm/values.schema.yaml` and the service's schema), `files/known.json` (the names
that the templates check), `README.md`, copies of alerts and dashboard (a chart cannot name a file outside its folder),
and the golden files of the tests.
"""

import difflib
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from notifier.configuration.configured_feature import settings_model
from notifier.features import FEATURES
from notifier.settings.config_file import gone_settings
from notifier.settings.config_schema import config_schema
from tools.chart_rendering import CHART, Rendered, template

SETTINGS = settings_model(FEATURES)
ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "helm/values.schema.yaml"
VALUES = CHART / "values.yaml"
COPIES = {"deploy/prometheus/*.yaml": "files/prometheus", "deploy/grafana/*.json": "files/grafana"}
GOLDEN = ROOT / "tests/chart/golden"
LEFT_OUT = "tests"  # deploy/prometheus holds the cases of promtool too, in a folder or a file of that name
ONE_LINE = 60  # characters of a default that is shown whole

INTRODUCTION = """\
# notifier

The Helm chart of notifier: workers that deliver OpenID Connect Back-Channel Logout notifications. It creates objects in
one namespace only and gives no rights to anybody. [docs/kubernetes.md](../../docs/kubernetes.md) explains how to
install, size, upgrade, roll back, and move to another broker.

```sh
helm install notifier helm/notifier --namespace logout --create-namespace -f values.yaml
helm test notifier --namespace logout      # if canary.enabled
```

It needs Kubernetes {versions}. RabbitMQ is not part of it.

## Values

Helm refuses a value that is misspelt, of the wrong type, or at odds with another. Null stands for the default; only
the members of `resources`, `runAsUser`, `runAsGroup` and `fsGroup` are left out by it. `make chart` writes this table
from `helm/values.schema.yaml`.

| value | default | |
|---|---|---|
"""


def schema() -> dict[str, Any]:
    """The schema of the values, in the draft that Helm reads."""
    values: dict[str, Any] = yaml.safe_load(SOURCE.read_text())
    service = config_schema(SETTINGS)
    definitions = {**service["$defs"], **values.pop("$defs")}
    said_by_templates(values, definitions)
    for name in gone_values(values):
        values["properties"][name] = {}
    config, clients = values["properties"]["config"], values["properties"]["clients"]
    config.update(additionalProperties=False, properties=service["properties"])
    leave_to_templates(gone_settings(SETTINGS), service["properties"], definitions)
    clients["items"] = {"$ref": "#/$defs/ClientMetadata"}
    items = re.findall(r'"items": \{"\$ref": "#/\$defs/([\w.]+)"', json.dumps([values, definitions]))
    for name in sorted(definitions.keys() - {*items}):
        permit_null(definitions[name], definitions)
        definitions[name] = or_null(definitions[name])
    permit_null(values, definitions)
    kept = {name: {key: part for key, part in made.items() if key != "says"} for name, made in definitions.items()}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **values, "$defs": kept}


def gone_values(values: dict[str, Any]) -> dict[str, str]:
    """Return the values that were removed, each with the reason. The templates refuse these too."""
    return {name: member["gone"] for name, member in values["properties"].items() if "gone" in member}


def leave_to_templates(gone: Iterator[tuple[str, str]], config: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Let the schema accept former settings: the templates refuse them with the remedy."""
    for setting, _ in gone:
        properties = config
        *sections, name = setting.split(".")
        for section in sections:
            if section != "*":
                [inner] = re.findall(r'"#/\$defs/(\w+)"', json.dumps(properties[section]))
                properties = definitions[inner]["properties"]
        properties[name] = {}


def said_by_templates(section: dict[str, Any], definitions: dict[str, Any], at: str = "") -> dict[str, dict[str, str]]:
    """Remove the patterns that have a text (`says`) from the section, and return them by path.

    Helm shows only the pattern that a value does not match, not the remedy. So the templates refuse these values.
    Members of a list keep their patterns, because no path leads to them.
    """
    found: dict[str, dict[str, str]] = {}
    for part in ("properties", "patternProperties"):
        for name, written in section.get(part, {}).items():
            made = definitions.get(written.get("$ref", "").removeprefix("#/$defs/"), {}) if "$ref" in written else {}
            path = f"{at}{name.strip('^$')}"
            member = {key: deepcopy(each) for key, each in {**made, **written}.items() if key != "$ref"}
            if "says" in member:
                found[path] = {"pattern": member.pop("pattern"), "says": member.pop("says")}
            inner = said_by_templates(member, definitions, f"{path}.")
            if inner or path in found:
                section[part][name] = member
            found |= inner
    return found


def or_null(member: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a value that may be null, too."""
    made = {key: part for key, part in member.items() if key != "leftOut"}
    if "const" in made:
        made["enum"] = [made.pop("const")]
    if "enum" in made:
        made["enum"] = [*made["enum"], None]
    if "type" in made:
        kinds = made["type"] if isinstance(made["type"], list) else [made["type"]]
        made["type"] = [*kinds, *({"null"} - set(kinds))]
    if "anyOf" in made and {"type": "null"} not in made["anyOf"]:
        made["anyOf"] = [*made["anyOf"], {"type": "null"}]
    return made


def resolved(member: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return it with the members of the chart's definition that it names."""
    name = member.get("$ref", "").removeprefix("#/$defs/")
    own = {key: part for key, part in member.items() if key != "$ref"}
    return {**definitions[name], **own} if name.startswith("chart.") else member


def permit_null(section: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Let each value be null, which Helm passes to a chart that is part of another. The templates give the default."""
    for part in ("properties", "patternProperties"):
        for name, written in section.get(part, {}).items():
            member = resolved(written, definitions)
            permit_null(member, definitions)
            section[part][name] = or_null(member)
    if isinstance(section.get("additionalProperties"), dict):
        section["additionalProperties"] = or_null(resolved(section["additionalProperties"], definitions))


def defaults(
    members: dict[str, Any], values: dict[str, Any], definitions: dict[str, Any], at: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield what stands for null, by path: each default, except where null leaves the value out (`leftOut`)."""
    for name, default in values.items():
        member = resolved(members[name], definitions)
        if not member.get("leftOut"):
            yield f"{at}{name}", default
        if "properties" in member:
            yield from defaults(member["properties"], default, definitions, f"{at}{name}.")


def variables(
    section: dict[str, Any], definitions: dict[str, Any], at: str = "NOTIFIER_"
) -> Iterator[tuple[str, bool]]:
    """Yield the name of each environment variable that sets a member of the section, and whether that is a secret."""
    for name, member in section["properties"].items():
        here = f"{at}{name}".upper()
        kinds = [member, *member.get("anyOf", ())]
        yield here, any(kind.get("format") == "password" for kind in kinds)
        for kind in kinds:
            inner = definitions.get(kind.get("$ref", "").removeprefix("#/$defs/"), {})
            if "properties" in inner:
                yield from variables(inner, definitions, f"{here}__")


def known() -> dict[str, Any]:
    """What the templates check: members of a client, environment variables of settings (true: a secret), and texts."""
    service, values = config_schema(SETTINGS), yaml.safe_load(SOURCE.read_text())
    members = service["$defs"]["ClientMetadata"]["properties"]
    return {
        "client": dict.fromkeys(members, True),
        "variables": dict(variables(service, service["$defs"])),
        "texts": said_by_templates(values, values["$defs"]),
        "gone": dict(gone_settings(SETTINGS)),
        "goneValues": gone_values(values),
        "defaults": dict(defaults(values["properties"], yaml.safe_load(VALUES.read_text()), values["$defs"])),
    }


def rows(members: dict[str, Any], values: dict[str, Any], definitions: dict[str, Any], at: str = "") -> Iterator[str]:
    """Yield a row for each value, and one for each section before its members."""
    for name, written in members.items():
        path = f"{at}{name}"
        member = {**definitions.get(written.get("$ref", "").removeprefix("#/$defs/"), {}), **written}
        text = member.get("description", "")
        default = values.get(name)
        if "properties" in member and name != "config":
            yield f"| **`{path}`** | | {text} |"
            yield from rows(member["properties"], default or {}, definitions, f"{path}.")
        elif name in values:
            shown = json.dumps(default)
            yield f"| `{path}` | {f'`{shown}`' if len(shown) <= ONE_LINE else 'see values.yaml'} | {text} |"


def readme() -> str:
    """README.md of the chart."""
    made: dict[str, Any] = yaml.safe_load(SOURCE.read_text())
    values = yaml.safe_load(VALUES.read_text())
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    versions = chart["kubeVersion"].removeprefix(">=").removesuffix(".0-0") + " and newer"
    table = "\n".join(rows(made["properties"], values, made["$defs"]))
    return INTRODUCTION.replace("{versions}", versions) + table + "\n"


def copies() -> dict[Path, str]:
    """The files of the repository that the chart ships, by their path in the chart."""
    return {
        CHART / folder / source.name: source.read_text()
        for pattern, folder in COPIES.items()
        for source in sorted(ROOT.glob(pattern))
        if LEFT_OUT not in source.name
    }


def generated() -> dict[Path, str]:
    """All generated files, by path."""
    made = {
        CHART / "values.schema.json": json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
        CHART / "files/known.json": json.dumps(known(), indent=1) + "\n",
        CHART / "README.md": readme(),
    }
    return {**made, **copies()}


def surplus() -> set[Path]:
    """Copies whose source is gone."""
    return {path for folder in COPIES.values() for path in (CHART / folder).glob("*")} - copies().keys()


def upgrade() -> str:
    """What an upgrade changes at an installation of typical use, as a diff of what Helm renders.

    `before.yaml` is what the chart of 2026-11-29, before its first repair, rendered from `values.yaml` beside it.
    """
    before = (GOLDEN / "upgrade/before.yaml").read_text().splitlines(keepends=True)
    after = template(GOLDEN / "upgrade/values.yaml").stdout.splitlines(keepends=True)
    return "".join(difflib.unified_diff(before, after, "before", "after"))


def golden() -> dict[Path, str]:
    """What the chart renders with everything turned on, and what an upgrade changes, for a reviewer to read."""
    return {GOLDEN / "everything.yaml": Rendered.of("everything").text, GOLDEN / "upgrade/changes.diff": upgrade()}


def write(files: dict[Path, str]) -> None:
    """Write each file."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    for path in surplus():
        path.unlink()
    write(generated())
    write(golden())  # last: made of the former
