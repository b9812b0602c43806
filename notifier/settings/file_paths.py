"""Defines the types of files and folders in a configuration, with their checks.

The validation context has three members. `base` is the folder of the configuration file, from which relative paths
start. `files` collects each configured file, even if it is missing, so that a file watch covers it. `unusable` has the
files that were reported as missing or empty: they are accepted, so that the other files of their section are checked.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo
from pydantic_core import PydanticCustomError

from notifier.model.printable import stray_character

UNUSABLE_FILE = "unusable_file"  # the type of an error that does not prevent checks of the rest of its section


def expand_home(path: Path) -> Path:
    """Return the path with a leading `~` resolved. Raises ValueError if there is no such home."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} cannot be found: there is no such home; write the path in full") from None


def resolve_from_base(path: Path, info: ValidationInfo) -> Path:
    """Return the path, resolved against the folder of the configuration file."""
    base: Path = (info.context or {}).get("base", Path())
    if path == Path():
        raise ValueError("must not be empty; name a folder, or leave it out")
    return base / expand_home(path)


def check_usable(find_mistake: Callable[[Path], str | None]) -> AfterValidator:
    """Return a validator of a resolved path. `find_mistake` returns why the file cannot be used, None if it can."""

    def check(path: Path, info: ValidationInfo) -> Path:
        refuse_file(path, find_mistake(path), info)
        return path

    return AfterValidator(check)


def refuse_file(path: Path, mistake: str | None, info: ValidationInfo) -> None:
    """Raise PydanticCustomError with the mistake, the path, and the type UNUSABLE_FILE.

    Does nothing if there is no mistake, or it was reported before: then `unusable` has the path.
    """
    if mistake is not None and path not in (info.context or {}).get("unusable", ()):
        raise PydanticCustomError(UNUSABLE_FILE, "{mistake}", {"mistake": mistake, "path": path})


def resolve_file(path: Path, info: ValidationInfo) -> Path:
    """Return the path, resolved against the folder of the configuration file. Record it in `files`."""
    context = info.context or {}
    if path == Path():
        raise ValueError("must not be empty; name a file, or leave it out")
    path = context.get("base", Path()) / expand_home(path)
    context.get("files", set()).add(path)  # a missing one too: a watcher waits for it to appear
    return path


def find_absence(path: Path) -> str | None:
    """Return that there is no such file, or why that is unknown; None if it exists."""
    try:
        exists = path.is_file()
    except OSError as error:  # its folder may not be read, or its name is too long
        return f"{path} cannot be read: {error.strerror}"
    stray = stray_character(path.name)
    return None if exists else f"there is no file {path}" + (f": the name {stray}" if stray else "")


ExistingFile = Annotated[Path, AfterValidator(resolve_file), check_usable(find_absence)]
