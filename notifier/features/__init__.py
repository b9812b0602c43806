"""What notifier can do beside its core: one folder for each. A feature imports the core and no other feature."""
