"""The feed of delivery results for audit systems. Open `feed`."""
