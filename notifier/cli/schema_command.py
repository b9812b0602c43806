"""The command `notifier schema`: prints the JSON Schemas of notifier's documents, generated from its types."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from notifier.configuration.configured_feature import settings_model
from notifier.features import FEATURES
from notifier.model.documents.event_document import event_schema
from notifier.operators.terminal.output import say_json
from notifier.settings.config_schema import config_schema

SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "event": event_schema,
    "config": lambda: config_schema(settings_model(FEATURES)),
    "clients": lambda: _part_of_config_schema("clients"),
    "tokens": lambda: _part_of_config_schema("tokens"),
    **{document: schema for feature in FEATURES for document, schema in feature.schemas.items()},
}


def require_document(document: str) -> str:
    """Return the name of a document. Raises BadParameter for an unknown name."""
    if document not in SCHEMAS:
        raise typer.BadParameter(f"{document} is not one of {', '.join(SCHEMAS)}")
    return document


def schema(
    document: Annotated[
        str, typer.Argument(parser=require_document, metavar="DOCUMENT", help=f"One of {', '.join(SCHEMAS)}.")
    ],
) -> None:
    """Print the JSON Schema (2020-12) of a document that notifier reads, or of the outcomes that it writes.

    Examples:
        # check an event before it is published
        notifier schema event > event.schema.json
        # let the editor complete the configuration: its first line then is
        # yaml-language-server: $schema=config.schema.json
        # the clients file
        notifier schema clients > clients.schema.json
    """
    say_json(SCHEMAS[document](), indent=2)


def _part_of_config_schema(document: str) -> dict[str, Any]:
    """Return the schema of a document that the configuration's schema defines."""
    config = SCHEMAS["config"]()
    return {"$schema": config["$schema"], "$ref": f"#/$defs/{document}", "$defs": config["$defs"]}
