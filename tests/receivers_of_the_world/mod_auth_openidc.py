"""A real Apache with a page that mod_auth_openidc protects."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.apt_programs import ProgramMissing, program

MODULES = "/usr/lib/apache2/modules"
PAGE = "the protected page"
_CONFIGURATION = """ServerRoot /usr/lib/apache2
ServerName {host}
Listen 127.0.0.1:{port}
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
Mutex file:{folder}
User www-data
Group www-data
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authn_core_module modules/mod_authn_core.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule authz_user_module modules/mod_authz_user.so
LoadModule auth_openidc_module modules/mod_auth_openidc.so
ErrorLog {folder}/apache.err
DocumentRoot {folder}/www
OIDCCryptoPassphrase a-passphrase-for-loopback-only
OIDCScope openid
OIDCCacheType shm
{more}
<Location /protected/>
  AuthType openid-connect
  Require valid-user
</Location>
"""


@contextmanager
def mod_auth_openidc(port: int, more: str, host: str = "127.0.0.1") -> Iterator[None]:
    """Run it while entered. `more`: lines about the identity server and the client.

    It reads its pages as another user, so they are not in pytest's folder, which is private.
    """
    try:
        program("mod_auth_openidc.so", "apache2 libapache2-mod-auth-openidc", MODULES)
    except ProgramMissing:
        if not Path(MODULES, "mod_auth_openidc.so").exists():  # a module need not be executable
            pytest.fail("apt-get install -y apache2 libapache2-mod-auth-openidc")
    with tempfile.TemporaryDirectory(prefix="apache.", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "www/protected").mkdir(parents=True)
        (folder / "www/protected/index.html").write_text(PAGE)
        (folder / "apache.conf").write_text(_CONFIGURATION.format(host=host, port=port, folder=folder, more=more))
        process = subprocess.Popen(["/usr/sbin/apache2", "-DFOREGROUND", "-f", str(folder / "apache.conf")])
        try:
            yield
        except BaseException as error:
            error.add_note(f"Apache's log ends: {_last(folder / 'apache.err')}")
            raise
        finally:
            process.terminate()
            process.wait(20)


def _last(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "it wrote none"
