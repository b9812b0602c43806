"""The fates of deliveries, for audit systems: the feed, its collection, the propagation report."""
