"""Postfix for comparison: the installed one, or Debian's package fetched and unpacked, never installed.

The unpacked package is laid over /usr and /etc in a private mount namespace, so the host is not touched; that needs
root. Its smtp-source and smtp-sink also serve as neutral load generator and sink.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.server import USERS, BenchError, Server

_MAIL_UID = 64110  # owns the Maildirs; needs no name
_USERS = {"postfix": 64101, "postdrop": 64102}
_SERVICES = """\
{listen} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
smtp unix - - n - - smtp
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"""


class Package:
    """Where Postfix's files are: `root` is / when it is installed, else the folder it was unpacked into."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def installed(self) -> bool:
        return self.root == Path("/")

    def program(self, name: str) -> tuple[list[str], dict[str, str]]:
        """One of the stand-alone tools, which need its libraries but no configuration."""
        libraries = f"{self.root}/usr/lib/postfix:{self.root}/usr/lib/{_multiarch()}"
        return [str(self.root / "usr/sbin" / name)], {**os.environ, "LD_LIBRARY_PATH": libraries}

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, with the package in its place."""
        if self.installed:
            return list(command)
        script = (
            'top=$1; shift; for part in usr etc; do mount -t overlay mta-bench -o "lowerdir=$top/$part:/$part" "/$part"'
            ' || exit 71; done; exec "$@"'
        )
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(self.root), *command]

    def version(self) -> str:
        command = self.inside(["postconf", "-c", "/nowhere", "-d", "-h", "mail_version"])
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return f"Postfix {done.stdout.strip() or 'of unknown version'}"


def cache_folder(given: str | None) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(given or f"{base}/mta-bench").absolute()


def find(cache: Path) -> Package:
    """The installed Postfix, the one fetched earlier, or a fresh one. BenchError says why there is none."""
    if Path("/usr/sbin/smtp-source").exists() and Path("/usr/lib/postfix/sbin/master").exists():
        return Package(Path("/"))
    root = cache / "postfix"
    if not (root / "complete").exists():
        _fetch(root, cache / "packages")
    return Package(root)


def _fetch(root: Path, downloads: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise BenchError("Postfix is neither installed nor can it be fetched here: that takes apt-get and dpkg-deb")
    shutil.rmtree(root, ignore_errors=True)
    downloads.mkdir(parents=True, exist_ok=True)
    wanted, done = ["postfix"], set[str]()
    while wanted:
        name = wanted.pop()
        if name not in done:
            done.add(name)
            wanted += _unpack(_download(name, downloads), root)
    _add_users(root)
    (root / "complete").touch()


def _download(name: str, folder: Path) -> Path:
    fetch = partial(
        subprocess.run,
        ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    done = fetch()
    if done.returncode:  # a machine that has never looked has no lists
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)
        done = fetch()
    found = sorted(folder.glob(f"{name}_*.deb"))
    if done.returncode or not found:
        raise BenchError(f"apt-get download {name}: {done.stderr.strip()}")
    return found[-1]


def _unpack(package: Path, root: Path) -> list[str]:
    """Returns the libraries it needs that this machine lacks."""
    subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    fields = subprocess.run(["dpkg-deb", "-f", str(package), "Depends"], capture_output=True, text=True, check=True)
    names = re.findall(r"(?:^|, *)(lib[a-z0-9.+-]+)", fields.stdout)
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status}", name]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.startswith("installed")


def _add_users(root: Path) -> None:
    """Private copies of the user tables, with Postfix's own added: seen only where the package is in place."""
    for table, shape in (("passwd", "{0}:x:{1}:{1}::/:/bin/false\n"), ("group", "{0}:x:{1}:\n")):
        lines = Path(f"/etc/{table}").read_text()
        for name, number in _USERS.items():
            lines += shape.format(name, number)
        (root / "etc" / table).write_text(lines)
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")  # no query leaves the machine


def _multiarch() -> str:
    return f"{os.uname().machine}-linux-gnu"


class Postfix(Server):
    """Postfix with its stock durability: each queue file and each Maildir file is synced."""

    name = "postfix"
    package: Package
    concurrency = 50

    def prepare(self) -> None:
        if os.geteuid() != 0:
            raise BenchError("Postfix can only be run by root")
        self._owner = self._number("passwd", "postfix")
        self._conf = self.folder / "conf"
        self._conf.mkdir()
        (self._conf / "main.cf").write_text("".join(f"{k} = {v}\n" for k, v in self._parameters().items()))
        (self._conf / "master.cf").write_text(_SERVICES.format(listen=f"127.0.0.1:{self.port}"))
        # One line each: virtual(8) takes no pattern that would put a part of the address into a path.
        lines = [f"{user}@virt.test {user}/\n" for user in USERS]
        (self._conf / "mailboxes").write_text("".join(lines))
        self._make_folders()

    def command(self) -> tuple[list[str], dict[str, str]]:
        command = self.package.inside(["/usr/lib/postfix/sbin/master", "-c", str(self._conf)])
        return command, {**os.environ, "MAIL_CONFIG": str(self._conf)}

    def queued(self) -> int:
        queue = self.folder / "spool"
        return sum(
            len(files) for part in ("incoming", "active", "deferred", "hold") for *_, files in os.walk(queue / part)
        )

    def _parameters(self) -> dict[str, object]:
        hold = "check_recipient_access static:HOLD, " if self.workload == "accept" else ""
        return {
            "compatibility_level": "3.6",
            "queue_directory": self.folder / "spool",
            "data_directory": self.folder / "data",
            "command_directory": "/usr/sbin",
            "daemon_directory": "/usr/lib/postfix/sbin",
            "shlib_directory": "/usr/lib/postfix",
            "meta_directory": "/etc/postfix",
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "maillog_file": self.folder / "mail.log",
            "maillog_file_prefixes": "/",
            "myhostname": "peer.test",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "local_recipient_maps": "",
            # Nothing may slow it down that the other side does not do either: names, TLS, per-client limits.
            "disable_dns_lookups": "yes",
            "smtp_dns_support_level": "disabled",
            "smtpd_peername_lookup": "no",
            "smtpd_tls_security_level": "none",
            "smtp_tls_security_level": "none",
            "smtpd_client_connection_count_limit": 0,
            "smtpd_client_connection_rate_limit": 0,
            "in_flow_delay": 0,
            "default_process_limit": 200,
            "initial_destination_concurrency": self.concurrency,
            "smtp_destination_concurrency_limit": self.concurrency,
            "virtual_destination_concurrency_limit": self.concurrency,
            "virtual_destination_recipient_limit": 1,
            "smtpd_relay_restrictions": "permit_mynetworks, reject",
            "smtpd_recipient_restrictions": f"{hold}permit_mynetworks, reject",
            "relayhost": f"[127.0.0.1]:{self.sink_port}",
            "virtual_mailbox_domains": "virt.test",
            "virtual_mailbox_base": self.mail,
            "virtual_mailbox_maps": f"texthash:{self._conf}/mailboxes",
            "virtual_uid_maps": f"static:{_MAIL_UID}",
            "virtual_gid_maps": f"static:{_MAIL_UID}",
            "virtual_mailbox_limit": 0,
            "message_size_limit": 100 << 20,
            # A failed delivery must not come back within the run and be counted twice.
            "queue_run_delay": "3000s",
            "minimal_backoff_time": "3000s",
        }

    def _make_folders(self) -> None:
        drop = self._number("group", "postdrop")
        _folder(self.mail, _MAIL_UID, _MAIL_UID, 0o755)
        _folder(self.folder / "data", self._owner, self._owner, 0o700)
        _folder(self.folder / "spool", 0, 0, 0o755)
        _folder(self.folder / "spool/pid", 0, 0, 0o755)
        for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private"):
            _folder(self.folder / "spool" / name, self._owner, 0, 0o700)
        for name in ("saved", "trace"):
            _folder(self.folder / "spool" / name, self._owner, 0, 0o700)
        _folder(self.folder / "spool/public", self._owner, drop, 0o710)
        _folder(self.folder / "spool/maildrop", self._owner, drop, 0o730)

    def _number(self, table: str, name: str) -> int:
        for line in (self.package.root / "etc" / table).read_text().splitlines():
            fields = line.split(":")
            if fields[0] == name:
                return int(fields[2])
        raise BenchError(f"{self.package.root}/etc/{table} has no {name}")


def _folder(path: Path, uid: int, gid: int, mode: int) -> None:
    path.mkdir()
    os.chown(path, uid, gid)
    path.chmod(mode)
