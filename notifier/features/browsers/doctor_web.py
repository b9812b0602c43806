"""The doctor's checks of front-channel pages, by the address that browsers call."""

from collections.abc import Iterator
from functools import partial

from notifier.features.browsers.doctor_pages import PageCase, examine_pages
from notifier.features.browsers.front_channel_context import LONGEST
from notifier.features.browsers.front_channel_page import FrontChannelPage
from notifier.features.browsers.front_channel_routes import PATH, SAW_COOKIE
from notifier.model.client import TlsFiles
from notifier.network.http.issuer_document import issuer_egress, only_in_tests
from notifier.network.http.issuer_documents import DocumentReader
from notifier.network.listeners.web_app import DEFAULT_HEADERS
from notifier.operators.doctor.doctor import Area, Check
from notifier.settings.service_settings import Settings

WITHIN = 10.0  # seconds for the answer


def page_checks(settings: Settings, reader: DocumentReader) -> Iterator[Check]:
    """One for each issuer with pages, but for those of tests."""
    egress = issuer_egress(settings.template().route.egress)
    headers = FrontChannelPage().headers(())
    for iss, pages in ({} if settings.web is None else settings.web.issuers).items():
        if only_in_tests(iss):
            continue
        case = PageCase(
            url=pages.url,
            headers=headers,
            saw_cookie=SAW_COOKIE,
            elsewhere=DEFAULT_HEADERS["Content-Security-Policy"],
        )
        tls = settings.issuers[iss].tls
        files = TlsFiles() if tls is None else tls.files()
        address = pages.url + PATH.replace("{context}", "A" * LONGEST)
        look = partial(reader.look, address, egress=egress, tls=files, within=WITHIN)
        run = partial(examine_pages, case, look)
        yield Check(area=Area.LISTENER, subject=pages.url, within=WITHIN + 2, run=run)
