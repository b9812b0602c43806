"""Shows the URLs of the queue without secrets."""

from urllib.parse import urlsplit, urlunsplit

from notifier.settings import QueueSettings


def shown_urls(queue: QueueSettings) -> list[str]:
    """Each URL without its password and its query, which may hold a password too."""
    return [url if queue.sqlite_file is not None else _without_password(url) for url in queue.url]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit((parts.scheme, user.partition(":")[0] + at + host, parts.path, "", ""))
