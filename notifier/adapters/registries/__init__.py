"""Where clients come from: `client_metadata` says what metadata mean, each other module reads one kind of source."""
