"""The feature `console`: pages for operators in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.feature import Feature, FeatureRuntime, WorkerView, late

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def _operate(view: WorkerView) -> FeatureRuntime:
    from notifier.features.console.console_settings import console_of

    settings = view.live.current.settings
    section = console_of(settings)
    if section is None or not section.enabled:
        return FeatureRuntime()
    import time
    from contextlib import asynccontextmanager

    from notifier.features.console.all_workers import AllWorkers, LocalAnswers
    from notifier.features.console.client_routes import ClientRoutes
    from notifier.features.console.console_files import console_files
    from notifier.features.console.console_parts import CONSOLE_PARTS
    from notifier.features.console.console_routes import ConsoleRoutes
    from notifier.features.console.doctor_routes import Doctor, DoctorRoutes
    from notifier.features.console.recent import Recent
    from notifier.features.console.sign_in_routes import SignInRoutes
    from notifier.features.console.sign_in_tokens import SignInTokens
    from notifier.network.listeners.authorization import Authorization
    from notifier.network.listeners.operation import routes_of
    from notifier.telemetry.logs import subject_hash

    recent = Recent(time.time)
    answer_locally = LocalAnswers(view, recent).act
    authorization, workers = Authorization(view.live.tokens), AllWorkers(view, answer_locally)
    doctor = Doctor(view.live.path)
    oidc = section.oidc
    sign_in_tokens = None if oidc is None else SignInTokens(oidc, view.live, subject_hash(settings).log_id)

    @asynccontextmanager
    async def close_at_end() -> AsyncIterator[None]:
        yield
        await doctor.close()
        if sign_in_tokens is not None:
            await sign_in_tokens.aclose()

    return FeatureRuntime(
        api=[
            *routes_of(ConsoleRoutes(view, workers), authorization),
            *routes_of(ClientRoutes(view, workers), authorization),
            *routes_of(DoctorRoutes(view, workers, doctor), authorization),
            *SignInRoutes(sign_in_tokens).routes(),
            *console_files(),
        ],
        observe=recent.observe,
        acts={CONSOLE_PARTS: answer_locally},
        authenticate_bearer=None if sign_in_tokens is None else sign_in_tokens.authenticate_bearer,
        lifespan=close_at_end(),
    )


CONSOLE = Feature(
    name="console",
    sections={"api.console": "notifier.features.console.console_settings:ConsoleSettings"},
    operate=_operate,
    checks=late("notifier.features.console.sign_in_provider:sign_in_checks"),
)
