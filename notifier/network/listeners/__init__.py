"""How notifier is called: listeners, who may, how much, refusals, the API's description."""
