"""Logs manual actions and who did them, at every level: whoever may set the level must not hide that way."""

import logging

import structlog

_EVERY_LEVEL = structlog.make_filtering_bound_logger(logging.NOTSET)


def write_audit(action: str, **told: object) -> None:
    """Write one line, marked `audit`, with the usual processors. It must hold no `sub` or `sid`."""
    structlog.wrap_logger(None, wrapper_class=_EVERY_LEVEL).warning(action, audit=True, **told)
