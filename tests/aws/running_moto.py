"""A KMS of moto in a separate process, with the actions of its owner."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiobotocore.session import AioSession

from notifier.features.signers.aws_kms_key import AwsKmsKey
from notifier.features.signers.signer_settings import AwsKmsSettings
from tests.cluster.processes import TIED

REGION = "eu-central-1"


@dataclass(frozen=True, slots=True)
class Kms:
    """A KMS with its owner's actions."""

    endpoint: str

    @asynccontextmanager
    async def owner(self) -> AsyncIterator[Any]:
        """Return a client with all permissions."""
        made = AioSession().create_client(
            "kms", region_name=REGION, endpoint_url=self.endpoint,
            aws_access_key_id="AKIAOWNER", aws_secret_access_key="not-a-secret",
        )  # fmt: skip
        async with made as client:
            yield client

    async def key(self, spec: str) -> str:
        """Return the ARN of a new key."""
        async with self.owner() as client:
            made = await client.create_key(KeyUsage="SIGN_VERIFY", KeySpec=spec)
            return str(made["KeyMetadata"]["Arn"])

    def place(self, key_id: str) -> AwsKmsKey:
        """Return the key as a signer. AWS's configuration file names the endpoint."""
        Path(os.environ["AWS_CONFIG_FILE"]).write_text(f"[default]\nendpoint_url = {self.endpoint}\n")
        return AwsKmsKey(AwsKmsSettings.model_validate({"key_id": key_id, "region": REGION}))


@contextmanager
def moto(*words: str) -> Iterator[Kms]:
    """Run a new moto."""
    command = [*TIED, sys.executable, "-m", "tests.aws.moto_server", *words]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            yield Kms(process.stdout.readline().strip())
        finally:
            process.kill()
