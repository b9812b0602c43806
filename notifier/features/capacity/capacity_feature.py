"""The feature `capacity`: how many workers are needed."""

from notifier.feature import Feature

CAPACITY = Feature(
    name="capacity",
    commands=(
        ("capacity", "notifier.features.capacity.capacity_command",
            "Compute how many workers you need when so many sessions end within a given time."),
    ),
)  # fmt: skip
