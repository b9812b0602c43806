"""Former names that users may rely on."""

import warnings
from collections.abc import Callable
from typing import Any


def deprecated_name(former: str, name: str) -> Callable[..., Any]:
    """Return a method for a former name. It warns, and calls the method `name`."""

    def call(self: object, *arguments: Any, **options: Any) -> Any:
        warnings.warn(f"`{former}` is deprecated: use `{name}`", DeprecationWarning, stacklevel=2)
        return getattr(self, name)(*arguments, **options)

    call.__name__ = former
    return call
