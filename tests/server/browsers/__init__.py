"""What browsers and upstream providers call."""
