"""Python imports this module in each child process of a run with NOTIFIER_TEST_HOOKS=off."""  # noqa: INP001  no package: its folder is on the path

from contextlib import suppress

with suppress(ImportError):  # an environment without these libraries
    from tests.support.library_changes import all_hooks_off

    all_hooks_off()
