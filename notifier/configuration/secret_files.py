"""Finds secret files that every user of the machine may read.

Group read permission is accepted: Kubernetes mounts secrets as 0440 for the pod's `fsGroup`. A file in a folder that
others may not enter is safe in any mode.
"""

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from notifier.configuration.configured_feature import FeaturePart
from notifier.model.registry import Registry
from notifier.settings.service_settings import Settings
from notifier.settings.subject_key import subject_key_file

_SOURCE_SECRET_SETTINGS = ("client_secret_file", "token_file", "url_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedFile:
    """A secret file that every user of the machine may read. `setting`: the setting that names the file."""

    setting: str
    path: Path
    mode: int

    @property
    def text(self) -> str:
        """The problem."""
        return f"every user of this machine may read {self.path} (mode {self.mode:04o})"

    @property
    def advice(self) -> str:
        """The remedy."""
        return f"chmod 600 {self.path}; in Kubernetes, give the volume defaultMode 0440 and the pod an fsGroup"


def secrets_of(settings: Settings, registry: Registry, parts: Sequence[FeaturePart]) -> Mapping[str, Path]:
    """Return the files with keys, tokens and passwords, by the setting that names each file."""
    queue, api, web = settings.queue, settings.api, settings.web
    subject_key = subject_key_file(settings)  # generated at the first start, so it may not exist yet
    files: dict[str, Path | None] = {
        "queue.password_file": queue.password_file,
        "queue.tls.key_file": None if queue.tls is None else queue.tls.key_file,
        "api.tokens_file": None if api is None else api.tokens_file,
        "api.tls.key_file": None if api is None or api.tls is None else api.tls.key_file,
        "web.tls.key_file": None if web is None or web.tls is None else web.tls.key_file,
        "log.subject_key_file": settings.log.subject_key_file,
    }
    if subject_key is not None and subject_key.exists():
        files["log.subject_key_file"] = subject_key
    for iss, issuer in settings.issuers.items():
        for nth, key in enumerate(issuer.keys):
            files[f'issuers["{iss}"].keys[{nth}].file'] = key.file
        files[f'issuers["{iss}"].tls.key_file'] = None if issuer.tls is None else issuer.tls.key_file
    for part in parts:
        files |= part.secrets
    for source in settings.registry.all_sources:
        kind_settings = getattr(source, source.kind)
        section = f"registry.sources.{source.source_name}.{source.kind}"
        files |= {f"{section}.{name}": getattr(kind_settings, name, None) for name in _SOURCE_SECRET_SETTINGS}
        files[f"{section}.tls.key_file"] = getattr(getattr(kind_settings, "tls", None), "key_file", None)
    for clients in registry.clients.values():
        files |= {f"{client.client_id}: tls.key_file": client.route.tls.key_file for client in clients.values()}
    return {setting: path for setting, path in files.items() if path is not None}


def find_exposed_files(files: Mapping[str, Path]) -> list[ExposedFile]:
    """Return the files that every user may read, each once. Files that cannot be examined are skipped. Blocks."""
    exposures: dict[Path, ExposedFile] = {}
    for setting, path in files.items():
        if path in exposures:
            continue
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & stat.S_IROTH and _can_others_reach(path):
                exposures[path] = ExposedFile(setting=setting, path=path, mode=mode)
        except OSError:
            continue
    return list(exposures.values())


def _can_others_reach(path: Path) -> bool:
    """Return True if every user may enter all folders above the file."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
