"""PostgreSQL: an INSERT in a transaction of its own, synced here and on one of two synchronous standbys (ANY 1).

Its client is pgbench, which comes with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.others.system import BenchmarkError, Measure, Result, result_of, run, wait_until
from replicad.dev import free_ports

_PROGRAMS = Path("/usr/lib/postgresql")  # Debian's, by version; not in PATH
_USER = "postgres"  # it refuses to be root's
_TABLE = "CREATE TABLE log (number bigserial PRIMARY KEY, at timestamptz DEFAULT now(), payload bytea)"
_INSERT = "INSERT INTO log (payload) VALUES (decode(repeat('78', 100), 'hex'));\n"


class PostgreSql:
    name = "PostgreSQL"

    def missing(self) -> str:
        return "" if _programs() is not None else "postgresql"

    @contextlib.contextmanager
    def running(self, folder: Path) -> Iterator[Measure]:
        programs, ports = _programs(), free_ports(3)
        if programs is None:
            raise BenchmarkError("PostgreSQL is not installed")
        folder.chmod(0o755)
        work = folder / "work"
        run(["install", "-d", "-m", "755", *(["-o", _USER] if os.geteuid() == 0 else []), str(work)])
        names = ("primary", "standby-1", "standby-2")

        def pg(program: str, *arguments: str) -> str:
            return run([str(programs / program), *arguments], user=_USER)

        def ask(sql: str) -> str:
            return pg("psql", "-h", "127.0.0.1", "-p", str(ports[0]), "-d", "postgres", "-Atc", sql)

        def start(number: int, *options: str) -> None:
            data = work / names[number]
            settings = {
                "port": str(ports[number]),
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": str(work),
            }
            flags = " ".join([*(f"-c {key}={value}" for key, value in settings.items()), *options])
            pg("pg_ctl", "-D", str(data), "-w", "-l", str(work / f"{names[number]}.log"), "-o", flags, "start")
            stack.callback(pg, "pg_ctl", "-D", str(data), "-m", "immediate", "stop")

        with contextlib.ExitStack() as stack:
            pg("initdb", "-D", str(work / names[0]), "-A", "trust", "-U", _USER)
            start(0)
            for number in (1, 2):
                source = f"host=127.0.0.1 port={ports[0]} user={_USER} application_name=s{number}"
                pg("pg_basebackup", "-D", str(work / names[number]), "-R", "-c", "fast", "-d", source)
                start(number)
            ask("ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (s1, s2)'")
            ask("SELECT pg_reload_conf()")
            quorum = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"
            wait_until(lambda: ask(quorum).strip() == "2", "replication of PostgreSQL")
            ask(_TABLE)
            script = folder / "insert.sql"
            script.write_text(_INSERT)
            pgbench = [str(programs / "pgbench"), "-h", "127.0.0.1", "-p", str(ports[0]), "-U", _USER, "-n"]
            pgbench += ["-M", "prepared", "-j", "1", "-f", str(script)]
            yield lambda callers, seconds: _measure([*pgbench, "-c", str(callers)], work, seconds)


def _programs() -> Path | None:
    """The newest version's folder of programs."""
    versions = [each for each in _PROGRAMS.glob("*/bin") if (each / "pgbench").exists() and (each / "initdb").exists()]
    return max(versions, key=lambda each: int(each.parent.name), default=None)


def _measure(pgbench: Sequence[str], work: Path, seconds: float) -> Result:
    whole_s = max(1, round(seconds))  # it knows no others
    run([*pgbench, "-T", "1", "postgres"], user=_USER)  # a warm-up
    run([*pgbench, "-T", str(whole_s), "-l", "--log-prefix", str(work / "latencies"), "postgres"], user=_USER)
    latencies_s: list[float] = []
    for log in work.glob("latencies.*"):
        latencies_s += [int(line.split()[2]) / 1e6 for line in log.read_text().splitlines()]
        log.unlink()
    return result_of(latencies_s, whole_s)
