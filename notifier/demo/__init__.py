"""The demonstration: sample receivers that verify tokens, and the story they play."""
