"""The configuration in force: settings, registry, keys and tokens, which are read, replaced and watched together.

Open `loading.py` first (one reading), then `live_configuration.py` (reloads). `clients/` builds the registry.
"""
