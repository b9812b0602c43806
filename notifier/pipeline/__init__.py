"""The async edge: takes messages, admits, attempts and settles deliveries. Speaks to the outside through ports only."""
