"""Run the samples of docs/examples as their readers would: in Python, Java and Node, each with its RabbitMQ client.

Java and Node dependencies are downloaded once, by Maven and npm, and kept in build. Versions and digests are in
the files beside this one. Node itself is in the development environment, Java is installed by apt.
"""

import asyncio
import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.apt_programs import program
from tests.support.installing import run_installer
from tests.support.made_whole import made_whole
from tests.support.npm_modules import NODE, node_modules

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "docs/examples"
KEPT = HERE.parents[1] / "build/samples"
PATIENCE = 60.0  # seconds until a running sample is a failure
STORE_PASSWORD = "changeit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The exit of a sample, its duration in seconds, and its output."""

    status: int
    seconds: float
    output: str


class Samples:
    """The samples by language, ready to run from `folder`, which must be empty; they trust one authority."""

    def __init__(self, folder: Path, ca_file: Path) -> None:
        jars = f"{java_client()}/*"
        javac = program("javac", "default-jdk-headless")
        run_installer([javac, "-classpath", jars, "-d", str(folder), str(EXAMPLES / "Publish.java")])
        (folder / "node_modules").symlink_to(node_modules(HERE))
        (folder / "publish.mjs").write_bytes((EXAMPLES / "publish.mjs").read_bytes())  # finds its modules beside it
        self._commands: Mapping[str, Sequence[str]] = {
            "Python": [sys.executable, str(EXAMPLES / "publish.py")],
            "Java": [program("java", "default-jdk-headless"), "-classpath", f"{folder}:{jars}", "Publish"],
            "Node": [str(NODE), str(folder / "publish.mjs")],
        }
        self._environment = {**os.environ, **_trusting(ca_file, folder / "trusted.p12")}

    @property
    def languages(self) -> Sequence[str]:
        """Return the languages to run."""
        return [*self._commands]

    async def run(self, url: str) -> dict[str, Ended]:
        """Run all of them concurrently."""
        ended = await asyncio.gather(*(self._run(command, url) for command in self._commands.values()))
        return dict(zip(self._commands, ended, strict=True))

    async def _run(self, command: Sequence[str], url: str) -> Ended:
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**self._environment, "AMQP_URL": url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        return Ended(status=process.returncode or 0, seconds=time.monotonic() - began, output=output.decode())


def _trusting(ca_file: Path, store: Path) -> Mapping[str, str]:
    """Return the settings of docs/publishing.md for each language."""
    keytool = [program("keytool", "default-jdk-headless"), "-importcert", "-noprompt", "-alias", "broker"]
    run_installer([*keytool, "-file", str(ca_file), "-keystore", str(store), "-storepass", STORE_PASSWORD])
    java = f"-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword={STORE_PASSWORD}"
    return {"SSL_CERT_FILE": str(ca_file), "NODE_EXTRA_CA_CERTS": str(ca_file), "JAVA_TOOL_OPTIONS": java}


def java_client() -> Path:
    """Return the folder with amqp-client and its dependencies, by the version in pom.xml and digests in jars.sha256."""
    kept = _kept("java", "pom.xml", "jars.sha256")
    if not kept.exists():
        with made_whole(kept) as folder:
            maven = [program("mvn", "maven"), "-q", "-B", "-f", str(HERE / "pom.xml")]
            maven += [f"-Dmaven.repo.local={KEPT / 'maven'}", f"-DoutputDirectory={folder}"]
            run_installer([*maven, "dependency:copy-dependencies"])
            found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
            listed = (line.split() for line in (HERE / "jars.sha256").read_text().splitlines())
            wanted = {name: digest for digest, name in listed}
            assert found == wanted, "what Maven got is not what jars.sha256 lists"
    return kept


def _kept(language: str, *locks: str) -> Path:
    """Return the cache folder of the lock file."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in locks)).hexdigest()
    return KEPT / f"{language}-{digest[:12]}"
