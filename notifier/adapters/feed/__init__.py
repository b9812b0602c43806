"""Where the feed of outcomes goes that audit systems read."""
