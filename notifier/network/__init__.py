"""How notifier calls others, and how it is called."""
