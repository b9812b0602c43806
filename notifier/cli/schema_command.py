"""`notifier schema`: prints the JSON Schemas of what notifier reads and writes, generated from its types."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from notifier.features.feed.feed_event import feed_schema
from notifier.model.documents.event_document import event_schema
from notifier.operators.terminal.output import say_json
from notifier.settings.config_schema import config_schema


class Document(StrEnum):
    """The documents that have a schema."""

    EVENT = "event"
    CONFIG = "config"
    CLIENTS = "clients"
    TOKENS = "tokens"
    OUTCOME = "outcome"


def schema(
    document: Annotated[
        Document,
        typer.Argument(metavar="DOCUMENT", help="event, config, clients, tokens or outcome.", show_default=False),
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
    say_json(_schema(document), indent=2)


def _schema(document: Document) -> dict[str, Any]:
    if document is Document.EVENT:
        return event_schema()
    if document is Document.OUTCOME:
        return feed_schema()
    whole = config_schema()
    if document is Document.CONFIG:
        return whole
    return {"$schema": whole["$schema"], "$ref": f"#/$defs/{document}", "$defs": whole["$defs"]}
