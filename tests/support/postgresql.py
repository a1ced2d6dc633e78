"""A real PostgreSQL: a cluster made by initdb in a temp folder, on a loopback port, with its durability turned off."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.needs import need_program
from tests.support.ports import free_port
from tests.support.processes import Server, ServerFailed, ServerProcess

_READY_WITHIN_S = 120.0
_USER = "reconciler"
# Where Debian and its kin keep the programs, which aren't on the PATH.
_DEBIAN_FOLDERS = Path("/usr/lib/postgresql")
# PostgreSQL refuses to run as root; the first of these accounts that there is runs it then.
_ACCOUNTS = ("postgres", "nobody")


class PostgresqlServer(Server):
    """One cluster whose data outlives `stop` and `kill`."""

    def __init__(self) -> None:
        self._programs = _programs_folder()
        self._account = _account()
        # Not under pytest's own folders: those are closed to the account that the server runs under.
        self._folder = Path(tempfile.mkdtemp(prefix="reconciler-postgresql-"))
        self._port = free_port()
        self._names = itertools.count(1)
        self._process: ServerProcess | None = None
        if self._account is not None:
            os.chown(self._folder, self._account.pw_uid, self._account.pw_gid)
        initdb = [str(self._programs / "initdb"), "--pgdata", str(self._data), "--username", _USER]
        self._run([*initdb, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"])

    @property
    def dsn(self) -> str:
        """Of the cluster's own database; tests take one of their own by `new_database`."""
        return self._dsn("postgres")

    def start(self) -> None:
        """Starts the server and returns when it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            # The data is thrown away with the tests: nothing needs to reach the disk.
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
        }
        options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
        command = self._as_account([str(self._programs / "postgres"), "-D", str(self._data), *options])
        self._process = ServerProcess("postgresql", command, log=self._folder / "server.log", folder=self._folder)
        self._process.wait_ready(self._answers, deadline_s=_READY_WITHIN_S)

    def new_database(self) -> str:
        """Makes an empty database and gives its DSN."""
        name = f"test_{next(self._names)}"
        self._run([str(self._programs / "createdb"), *self._address(), "--no-password", name])
        return self._dsn(name)

    def drop_database(self, dsn: str) -> None:
        """Takes a database of `new_database` away, with whoever is connected to it."""
        name = urlsplit(dsn).path.removeprefix("/")
        self._run([str(self._programs / "dropdb"), *self._address(), "--no-password", "--force", name])

    def stop(self) -> None:
        """Fast shutdown (SIGINT): sessions are ended, data is kept."""
        if self._process is not None:
            self._process.stop(signal_number=signal.SIGINT)
            self._process = None

    def kill(self) -> None:
        """Immediate shutdown (SIGQUIT), which is a crash without orphaned children: the next start recovers."""
        if self._process is not None:
            self._process.stop(signal_number=signal.SIGQUIT)
            self._process = None

    def close(self) -> None:
        """Ends the server and takes its data away."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _dsn(self, database: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/{database}"

    def _address(self) -> list[str]:
        return ["--host", "127.0.0.1", "--port", str(self._port), "--username", _USER]

    def _answers(self) -> bool:
        probe = [str(self._programs / "pg_isready"), *self._address(), "--timeout", "1"]
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0

    def _as_account(self, command: list[str]) -> list[str]:
        if self._account is None:
            return command
        identity = [f"--reuid={self._account.pw_uid}", f"--regid={self._account.pw_gid}", "--clear-groups"]
        # Said again here: the kernel forgets the signal of the outer prefix when the account changes.
        return ["setpriv", *identity, "--pdeathsig", "QUIT", *command]

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            self._as_account(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=self._folder,
            timeout=_READY_WITHIN_S,
        )
        if done.returncode != 0:
            raise ServerFailed(f"{command[0]} failed with code {done.returncode}:\n{done.stdout}{done.stderr}")


def _programs_folder() -> Path:
    """The folder with initdb and postgres of the newest version that there is; skips the test when there is none."""
    versions = [path for path in _DEBIAN_FOLDERS.glob("*/bin") if (path / "initdb").exists()]
    if versions:
        return max(versions, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0))
    return need_program("initdb", package="postgresql").resolve().parent


def _account() -> pwd.struct_passwd | None:
    """The account to run under: None for our own. Skips the test when we are root and can't become anybody else."""
    if os.geteuid() != 0:
        return None
    need_program("setpriv", package="util-linux")
    for name in _ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip(f"PostgreSQL doesn't run as root, and none of the accounts {', '.join(_ACCOUNTS)} exists")
