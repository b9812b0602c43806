"""Messages as each release wrote them, kept so that every later one can be shown to take them."""
