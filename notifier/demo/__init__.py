"""The demonstration: sample clients that verify tokens, and the scenarios `notifier demo` runs. Open `story`."""
