"""What became of deliveries, for audit systems: the feed, its collection, the propagation report."""
