"""A real PKCS#11 token, SoftHSM from Debian, and a module in front of it with selectable faults."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.apt_programs import program

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN, TOKEN = "1234", "idp"
_GENERATE = """
import sys
from pkcs11 import Attribute, KeyType, Mechanism, lib
module, token, pin, label, number = sys.argv[1:]
session = lib(module).get_token(token_label=token).open(user_pin=pin, rw=True)
curve = {Attribute.EC_PARAMS: bytes.fromhex("06032b6570")}
session.create_domain_parameters(KeyType.EC_EDWARDS, curve, local=True).generate_keypair(
    mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, store=True, label=label, id=bytes.fromhex(number)
)
"""
_FAULTY = Path(__file__).with_name("faulty_module.c")


class SoftHsm:
    """A token in a folder, with an RSA key `rsa` and a P-256 key `ec`. Its users need `environ`."""

    def __init__(self, folder: Path) -> None:
        self._util = program("softhsm2-util", "softhsm2")
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.tokens = folder / "tokens"
        self.tokens.mkdir()
        conf = folder / "softhsm.conf"
        conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
        self.environ = {"SOFTHSM2_CONF": str(conf)}
        self.pin_file = folder / "pin"
        self.pin_file.write_text(f"{PIN}\n")
        self.pin_file.chmod(0o600)
        self._run("--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", "5678")
        self.new_key("rsa", "01")
        self.new_key("ec", "02")

    def settings(self, label: str, module: Path = MODULE, **more: object) -> dict[str, object]:
        """Return a key of the configuration."""
        return {"module": str(module), "token": TOKEN, "label": label, "pin_file": str(self.pin_file), **more}

    def new_key(self, label: str, number: str) -> None:
        """Create a key: RSA, or by the start of the label `ec` for P-256, `ec384`, `ec521`, `ED25519` or `ED448`."""
        made = self.folder / f"{label}.pem"
        curve = f"ec_paramgen_curve:P-{label[2:] or 256}"
        kind = ["EC", "-pkeyopt", curve] if label.startswith("ec") else [label if label.startswith("ED") else "RSA"]
        subprocess.run(["openssl", "genpkey", "-algorithm", *kind, "-out", made], check=True, capture_output=True)
        self._run("--import", str(made), "--token", TOKEN, "--label", label, "--id", number, "--pin", PIN)
        made.unlink()

    def new_ed25519(self, label: str, number: str) -> None:
        """Create an Ed25519 key in the token, as HSMs do. Its point is encoded differently from an imported key's."""
        words = [sys.executable, "-c", _GENERATE, str(MODULE), TOKEN, PIN, label, number]
        subprocess.run(words, check=True, env={**os.environ, **self.environ})

    def faulty(self) -> "FaultyModule":
        """Return a module in front of this one. Its users need the `environ` of that time."""
        self.environ["FAULTY_MODULE"] = str(self.folder)
        return FaultyModule(self.folder)

    def _run(self, *arguments: str) -> None:
        environ = {**os.environ, **self.environ}
        subprocess.run([self._util, *arguments], check=True, capture_output=True, env=environ)


class FaultyModule:
    """Forwards to SoftHSM until a fault is selected."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "faulty.so"
        self._fault = folder / "fault"
        self._logins = folder / "logins"
        self.start_over()
        compiler = program("gcc", "gcc libc6-dev")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", self.path, _FAULTY, "-ldl"], check=True)

    def start_over(self) -> None:
        """Remove the fault, and reset the count of log-ins."""
        self.be("well")
        self._logins.write_text("")

    @property
    def logins(self) -> int:
        """Return the number of attempted log-ins."""
        return len(self._logins.read_text())

    def be(self, what: str) -> None:
        """Select the result of all later signatures: `well`, `hang`, `crash`, `error`, `forget`, `lie`, `slow`."""
        part = self._fault.with_suffix(".part")
        part.write_text(what)
        part.rename(self._fault)
