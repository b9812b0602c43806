"""Adds the sections and client options that features declare to the models, and defines those of a client's channel."""

from collections.abc import Collection, Iterator, Mapping
from inspect import getdoc
from pkgutil import resolve_name
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, Field, PrivateAttr, create_model

from notifier.model.client import Client
from notifier.model.client_channel import ClientChannel
from notifier.model.shared_resources import shared_cache
from notifier.settings.clients import ClientMetadata, ClientOptions
from notifier.settings.input_issues import submodel
from notifier.settings.service_settings import Settings
from notifier.settings.values import Section


@shared_cache(8)
def build_settings_model(sections: tuple[tuple[str, str], ...], client_options: tuple[str, ...] = ()) -> type[Settings]:
    """Return `Settings` with these sections, by path, and these members of a client's `notifier`.

    Each class is named as `module:Class` and imported here. Cached, since pydantic takes 60 ms to build the model.
    """
    within: dict[str, type[Section]] = {path: resolve_name(name) for path, name in sections}
    if not client_options:
        return cast("type[Settings]", _with_sections(Settings, within))
    bases = (*map(resolve_name, client_options), ClientOptions)
    made = create_model("ClientOptions", __base__=bases, __module__=ClientOptions.__module__)
    options = cast("type[Section]", made)
    model: type[Settings] = _with_sections(Settings, within | {"registry.defaults": options})
    model.client_metadata = _with_sections(ClientMetadata, {"notifier": options})
    return model


def _with_sections(model: type[BaseModel], sections: Mapping[str, type[Section]]) -> Any:
    """Return a subclass of the model with each section at its path, such as `web` or `api.console`.

    A section replaces the core's section at its path. If there is none, it is added as an optional member.
    """
    below: dict[str, dict[str, type[Section]]] = {}
    for path, section in sections.items():
        name, _, rest = path.partition(".")
        below.setdefault(name, {})[rest] = section
    members: dict[str, Any] = {}
    for name, inner in below.items():
        field = model.model_fields.get(name)
        if field is None:
            members[name] = inner[""] | None, Field(None, description=getdoc(inner[""]))
            continue
        old = submodel(field.annotation)
        assert old is not None, f"{name} is a section"
        new = inner.pop("", old)
        new = _with_sections(new, inner) if inner else new
        default = Field(default_factory=new) if isinstance(field.get_default(call_default_factory=True), old) else field
        members[name] = _replace_type(field.annotation, old, new), default
    return create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **members)


def _replace_type(annotation: Any, old: type[BaseModel], new: type[BaseModel]) -> Any:
    """Return an annotation such as `Model | None` or `dict[str, Model]` with another model."""
    if annotation is old:
        return new
    if submodel(annotation) is None:
        return annotation
    args = tuple(_replace_type(arg, old, new) for arg in get_args(annotation))
    origin = get_origin(annotation)
    return Union[args] if origin in (Union, UnionType) else origin[args]  # noqa: UP007  of members that are known now


class ChannelKindSection(Section):
    """The settings of one kind of channel. A feature derives its sections from it."""

    _of_preset: Collection[str] = PrivateAttr(())  # the members that the preset has set

    def values_in_force(self) -> Iterator[tuple[str, object, str]]:
        """Yield the name of each setting in force, its value, and its origin, which is empty if it was given."""
        for name, value in self.model_dump(mode="json", exclude_none=True).items():
            origin = "" if name in self.model_fields_set else "default of the channel"
            yield name, value, f"preset {getattr(self, 'preset', '')}" if name in self._of_preset else origin


class ChannelSection(Section):
    """The channel of a client. A feature derives its section from it, and declares it in its client options."""

    def to_channel(self) -> ClientChannel:
        """Return the channel as the pipeline uses it."""
        raise NotImplementedError

    def find_errors(self, client: Client, options: ClientOptions) -> Iterator[tuple[str, str]]:
        """Yield each setting of the client that contradicts its channel, and its error."""
        raise NotImplementedError

    def find_warnings(self, client: Client, row: object) -> Iterator[tuple[str, str]]:
        """Yield each setting of the client that is permitted but not advisable, and its warning. `row`: as written."""
        raise NotImplementedError
