"""A client that sends more than its answer, as an operator sees it."""

from pathlib import Path

from tests.support import behaviours as do
from tests.support.receivers import scripted
from tests.system.site import ISSUER, Site, client
from tests.system.worker_process import worker


async def test_surplus_is_counted_and_logged_with_the_client(tmp_path: Path) -> None:
    """The first answer counts. The log and a metric name the client."""
    shop = {"iss": ISSUER, "client_id": "shop"}
    async with scripted(do.raw(b"HTTP/1.1 204 No Content\r\n\r\n" * 16_000)) as receiver:
        site = Site(tmp_path, f"sqlite:{tmp_path / 'queue.db'}")
        site.write_clients([client("shop", receiver.url)])
        async with worker(site) as running:
            status, _ = await running.post({"iss": ISSUER, "sub": "alice", "sid": "s1", "clients": ["shop"]})
            assert status == 202
            line = await running.until_logged("answer_surplus")
            assert shop.items() <= line.items()
            attempt = await running.until_logged("attempt")
            assert (attempt["outcome"], attempt["status"]) == ("delivered", 204)
            await running.until_metric(1, "answers_surplus_total", **shop)
    assert len(receiver.requests) == 1
