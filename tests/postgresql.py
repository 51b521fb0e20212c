"""A real PostgreSQL server of the tests' own: Debian's programs, a folder and a socket of its own, no port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from orchestrator.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE_S: Final = 60.0

#: Who may log in without a password, and who may not.
SUPERUSER: Final = "muster"
GUARDED: Final = "guarded"
PASSWORD: Final = "correct horse battery staple"

_HBA: Final = f"local all {GUARDED} scram-sha-256\nlocal all all trust\n"


class MissingServerError(LookupError):
    """There is no PostgreSQL here to start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A server that runs."""

    folder: Path
    programs: Path
    pid: int

    def url(self, database: str = "muster", user: str = SUPERUSER) -> str:
        """Return the URL of a database, over the server's socket."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Run statements, one after the other, and return what they print."""
        command = [
            str(self.programs / "psql"),
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            str(self.folder),
            "-U",
            SUPERUSER,
        ]
        given = [each for statement in statements for each in ("-c", statement)]
        ended = subprocess.run(
            [*command, "-d", database, *given], capture_output=True, text=True, timeout=PATIENCE_S, check=True
        )
        return ended.stdout

    def new_database(self, name: str = "muster") -> str:
        """Make an empty database in place of the one of that name; return its URL."""
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}"')
        return self.url(name)

    def new_store(self) -> str:
        """Make a database with a store in it that is empty, in place of the one before; return its URL."""
        if self.sql("SELECT 1 FROM pg_database WHERE datname = 'ready'") == "":
            open_store(self.new_database("ready")).close()
        self.sql("DROP DATABASE IF EXISTS muster WITH (FORCE)", "CREATE DATABASE muster TEMPLATE ready")
        return self.url()


def programs() -> Path:
    """Return the folder of the newest server's programs; raises MissingServerError."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise MissingServerError("no PostgreSQL server; on Debian and Ubuntu: apt install postgresql")
    return found[-1].parent


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server and end it; its files are on no disk that matters, and go with it."""
    where = programs()
    folder = Path(tempfile.mkdtemp(prefix="muster-pg-"))
    user = _server_user()
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        initdb = [
            str(where / "initdb"),
            "-D",
            str(data),
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        subprocess.run(initdb, user=user, cwd=folder, check=True, capture_output=True, timeout=PATIENCE_S)
        (data / "pg_hba.conf").write_text(_HBA)
        settings = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60"]
        process = subprocess.Popen(
            [str(where / "postgres"), "-D", str(data), "-k", str(folder), *settings],
            user=user, cwd=folder, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _wait_until_ready(process)
            server = Server(folder=folder, programs=where, pid=process.pid)
            server.sql(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # what is connected is cut off
            process.communicate(timeout=PATIENCE_S)
    finally:
        shutil.rmtree(folder)


def _server_user() -> str | None:
    """Return whom the server runs as: it refuses root, and runs as ourselves for anybody else."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise MissingServerError("root may not run PostgreSQL, and there is no user postgres or nobody")


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "ready to accept connections" in line:
            return
    raise RuntimeError("PostgreSQL ended: " + "".join(said))
