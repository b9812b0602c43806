"""A real LemonLDAP::NG 2.21 as relying party: its portal on loopback, with sessions as files.

Debian 12 has 2.16, which does not support logout tokens. The 2.21 of its backports is unpacked into a separate folder;
its other dependencies are Debian 12's and installed by apt.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.apt_programs import ProgramMissing, program
from tests.support.debian_mirror import NoMirror, debian_mirror
from tests.support.installing import InstallFailed, run_installer
from tests.support.made_whole import alone
from tests.support.rabbitmq_node import free_ports

ROOT = Path("/var/cache/notifier-tests/lemonldap-2.21")
PACKAGES = ("liblemonldap-ng-common-perl", "liblemonldap-ng-handler-perl", "liblemonldap-ng-portal-perl")
_LIBRARIES = (
    "apache-session cache-cache class-xsaccessor config-inifiles crypt-openssl-rsa crypt-openssl-x509 convert-pem "
    "crypt-rijndael crypt-urandom html-template json json-xs mouse net-cidr net-ssleay plack uri www clone "
    "convert-base32 digest-hmac email-date-format email-sender html-formattext-withlinks list-moreutils "
    "regexp-assemble text-unidecode crypt-jwt io-string mime-tools string-random"
)
NEEDS = " ".join(f"lib{name}-perl" for name in _LIBRARIES.split())
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BOOT_SECONDS = 90.0
SESSION = """
use Lemonldap::NG::Common::Session;
my ($home, $sub, $sid) = @ARGV;
my $made = Lemonldap::NG::Common::Session->new({
    storageModule => "Apache::Session::File", storageModuleOptions => {
        Directory => "$home/sessions", LockDirectory => "$home/locks",
        generateModule => "Lemonldap::NG::Common::Apache::Session::Generate::SHA256" },
    kind => "SSO", force => 1, hashStore => 0,
    info => { _utime => time, _user => $sub, _oidc_OP => "op", _oidc_sub => $sub, _oidc_sid => $sid } });
die $made->error if $made->error;
print $made->id;
"""


def _installed() -> Path:
    """Return the folder with 2.21, created once in a minute. Raise ProgramMissing."""
    if os.geteuid() != 0 or platform.system() != "Linux":
        raise ProgramMissing("LemonLDAP::NG is unpacked by root on Debian")
    with alone(ROOT):
        program("plackup", NEEDS)
        if not ROOT.exists():
            _unpack()
    return ROOT


def _unpack() -> None:
    try:
        mirror = debian_mirror()
    except NoMirror as why:
        raise ProgramMissing(f"LemonLDAP::NG cannot be had: {why}") from None
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    work = ROOT.with_name(f"{ROOT.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("lists/partial", "archives/partial", "root"):
        (work / folder).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror} {release}-backports main\n")
    settings = {
        "Dir::Etc::sourcelist": work / "sources.list", "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": work / "lists", "Dir::Cache": work, "APT::Sandbox::User": "root",
    }  # fmt: skip
    apt = ["apt-get", "-qq", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]
    for arguments in (["update"], ["download", *PACKAGES]):
        try:
            run_installer([*apt, *arguments], cwd=work)
        except InstallFailed as why:
            raise ProgramMissing(f"LemonLDAP::NG cannot be had from {release}-backports: {why}") from None
    for package in work.glob("*.deb"):
        run_installer(["dpkg-deb", "-x", package, work / "root"])
    (work / "root").rename(ROOT)
    shutil.rmtree(work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Portal:
    """A running portal. `url` accepts logout tokens; `port` serves its pages by plain HTTP."""

    home: Path
    port: int
    url: str
    environment: Mapping[str, str]

    def sign_in(self, sub: str, sid: str) -> str:
        """Start a session, and return its name."""
        run = ["perl", "-e", SESSION, str(self.home), sub, sid]
        done = subprocess.run(run, env=self.environment, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    @property
    def sessions(self) -> set[str]:
        """Return the active sessions."""
        return {file.name for file in (self.home / "sessions").iterdir()}


@contextlib.contextmanager
def lemonldap(
    home: Path, iss: str, client_id: str, jwks: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> Iterator[Portal]:
    """Run a portal that trusts this issuer. `more`: its own settings. Raise ProgramMissing."""
    root = _installed()
    for folder in ("conf", "sessions", "locks", "c"):
        (home / folder).mkdir()
    (port,) = free_ports(1)
    _configure(home, root, port, iss, client_id, jwks, more or {})
    environment = {
        **os.environ,
        "LLNG_DEFAULTCONFFILE": str(home / "llng.ini"),
        "PERL5LIB": str(root / "usr/share/perl5"),
    }
    app = home / "portal.psgi"
    app.write_text("require Lemonldap::NG::Portal;\nLemonldap::NG::Portal->run({});\n")
    command = [program("plackup", NEEDS), "-s", "HTTP::Server::PSGI", "-o", "127.0.0.1", "-p", str(port), str(app)]
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        until = time.monotonic() + BOOT_SECONDS
        while "Accepting connections" not in log.read_text():
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"the portal did not start: {log.read_text()[-2000:]}")
            time.sleep(0.1)
        yield Portal(home=home, port=port, url=f"http://127.0.0.1:{port}/oauth2/blogout", environment=environment)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _configure(
    home: Path, root: Path, port: int, iss: str, client_id: str, jwks: Mapping[str, Any], more: Mapping[str, Any]
) -> None:
    (home / "llng.ini").write_text(
        f"""[all]
logLevel = info
useSafeJail = 0
[configuration]
type = File
dirName = {home}/conf
localStorage = Cache::FileCache
localStorageOptions = {{ 'namespace' => 'conf', 'cache_root' => '{home}/c', 'cache_depth' => 1 }}
[portal]
templateDir = {root}/usr/share/lemonldap-ng/portal/templates
staticPrefix = /static
languages = en
"""
    )
    generate = "Lemonldap::NG::Common::Apache::Session::Generate::SHA256"
    places = {"Directory": f"{home}/sessions", "LockDirectory": f"{home}/locks", "generateModule": generate}
    addresses = {f"{name}_endpoint": f"{iss}/{name}" for name in ("authorization", "token", "userinfo")}
    settings = {
        "cfgNum": "1", "cfgAuthor": "tests", "cfgDate": "1", "cfgVersion": "2.21.3",
        "key": "0123456789abcdef" * 2, "domain": "example.com",
        "portal": f"http://127.0.0.1:{port}/", "cookieName": "lemonldap", "securedCookie": 0, "whatToTrace": "_user",
        "authentication": "OpenIDConnect", "userDB": "Same", "passwordDB": "Null", "registerDB": "Null",
        "globalStorage": "Apache::Session::File", "globalStorageOptions": places,
        "localSessionStorage": "Cache::FileCache",
        "localSessionStorageOptions": {"cache_root": f"{home}/c", "namespace": "sessions", "cache_depth": 1},
        "captcha_mail_enabled": 0, "captcha_register_enabled": 0, "portalDisplayResetPassword": 0,
        "portalDisplayRegister": 0, "locationRules": {}, "exportedHeaders": {}, "exportedVars": {}, "macros": {},
        "groups": {},
        "oidcOPMetaDataJSON": {"op": json.dumps({"issuer": iss, "jwks_uri": f"{iss}/jwks", **addresses})},
        "oidcOPMetaDataJWKS": {"op": json.dumps(jwks)},
        "oidcOPMetaDataExportedVars": {"op": {}},
        "oidcOPMetaDataOptions": {
            "op": {
                "oidcOPMetaDataOptionsClientID": client_id, "oidcOPMetaDataOptionsClientSecret": "secret",
                "oidcOPMetaDataOptionsCheckJWTSignature": 1, "oidcOPMetaDataOptionsIDTokenMaxAge": 30,
            }
        },
    }  # fmt: skip
    (home / "conf" / "lmConf-1.json").write_text(json.dumps({**settings, **more}))
