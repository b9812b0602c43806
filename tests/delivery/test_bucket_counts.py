"""What waits in buckets, as far as several workers know."""

from notifier.delivery.bucket_counts import BucketCounts

SHOP, MAIL, WIKI = (("https://i", client_id) for client_id in ("shop", "mail", "wiki"))
BUCKETS = {SHOP: "7", MAIL: "7", WIKI: "8"}


def test_the_sum_over_workers_is_what_waits() -> None:
    """Whoever parks adds, and whoever gets it back takes off."""
    one, other = BucketCounts(BUCKETS.__getitem__), BucketCounts(BUCKETS.__getitem__)
    for _ in range(5):
        one.add(SHOP)
    for _ in range(3):
        other.remove(SHOP)
    assert [*one, *other] == [(*SHOP, 5), (*SHOP, -3)]
    one.remove(SHOP)
    one.remove(SHOP)
    assert sum(count for _, _, count in (*one, *other)) == 0


def test_a_bucket_that_was_empty_twice_holds_nothing() -> None:
    """Then what a worker counted that is gone no longer distorts the sum. One that was empty once may be filled now."""
    counts = BucketCounts(BUCKETS.__getitem__)
    for key in BUCKETS:
        counts.add(key)
    counts.forget_empty({"7", "8"})
    counts.forget_empty({"7"})
    assert [*counts] == [(*SHOP, 1), (*MAIL, 1), (*WIKI, 1)]
    counts.forget_empty({"7"})
    assert [*counts] == [(*SHOP, 1), (*MAIL, 1)]
