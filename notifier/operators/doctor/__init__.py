"""The doctor, which checks everything that a logout depends on, and the explanations of `notifier explain`."""
