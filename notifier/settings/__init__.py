"""The whole configuration as types: `service_settings` for the one file, `clients` for the registry."""
