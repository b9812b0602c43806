"""What is in force: settings, registry, keys and tokens, read together, replaced together, watched."""
