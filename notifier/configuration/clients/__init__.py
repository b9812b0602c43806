"""The clients of a configuration: sources are read periodically, and their metadata are merged into a registry.

Open `layers.py` first: it merges the rows of all sources. `authority.py` limits what a source may set, `guard.py` what
a new answer may remove, and `registry_refresh.py` schedules the reading.
"""
