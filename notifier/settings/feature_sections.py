"""Adds the sections and client options that features declare to the models of settings and clients."""

from collections.abc import Mapping
from inspect import getdoc
from pkgutil import resolve_name
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin

from pydantic import BaseModel, Field, create_model

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
