"""Where clients come from: metadata become a registry, layer by layer, and sources are read again and again."""
