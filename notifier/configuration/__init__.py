"""The configuration in force: settings, registry, keys and tokens. They are read, replaced and watched together."""
