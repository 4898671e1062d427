"""What is measured, of processes, Redis and the database. Linux only: it reads ``/proc``."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from pathlib import Path

import redis

from tests.chaos.lane import Lane, Worker
from tests.support.processes import pids_in_session

TABLES = ("graceful_shutdownreport", "graceful_reportedhook", "graceful_reportedjob")
MIB = 1024.0
NAMES = re.compile(r":[^:]*[0-9a-f]{8}.*$|:chaos-.*$|:soak-.*$|\{[^}]*\}")
"""What in a key's name is an id or a worker's name."""


def memory(pid: int) -> tuple[float, float]:
    """RSS and PSS in MiB; zeros if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    sizes = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines()[1:]}
    return int(sizes["Rss"]) / MIB, int(sizes["Pss"]) / MIB


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def of_worker(label: str, worker: Worker) -> dict[str, float]:
    """One worker process's own figures. (Its PSS says how many share its pages, not what it needs.)"""
    return {
        f"{label}: RSS, MiB": memory(worker.pid)[0],
        f"{label}: descriptors": descriptors(worker.pid),
        f"{label}: threads": threads(worker.pid),
    }


def of_fleet(workers: list[Worker]) -> dict[str, float]:
    """Of all processes, work horses too: what is left behind by one worker shows here."""
    pids = [pid for worker in workers for pid in pids_in_session(worker.pid)]
    return {"fleet: processes": len(pids), "fleet: PSS, MiB": sum(memory(pid)[1] for pid in pids)}


def of_redis(connection: redis.Redis) -> dict[str, float]:
    """Keys by the beginning of their names, clients and memory."""
    prefixes = Counter(NAMES.sub("", key.decode(errors="replace")) for key in connection.scan_iter(count=1000))
    sizes = {
        f"entries in {name}": _entries(connection, name)
        for name in ("graceful:journal", "graceful:holders", "graceful:heartbeats", "graceful:workers", "rq:workers")
    }
    figures = {f"keys {prefix}": float(count) for prefix, count in prefixes.items()}
    server = {
        "Redis: memory, MiB": connection.info("memory")["used_memory"] / MIB / MIB,
        "Redis: clients": connection.info("clients")["connected_clients"],
    }
    return {**server, **sizes, **figures}


def _entries(connection: redis.Redis, key: str) -> float:
    count = {b"hash": connection.hlen, b"zset": connection.zcard, b"set": connection.scard}
    kind = connection.type(key)
    return float(count[kind](key)) if kind in count else 0.0


def of_database(lane: Lane, ended: int) -> dict[str, float]:
    """Rows. A report a worker that ended is what is asked for, and not a leak; more than one would be."""
    with closing(lane.open_database()) as database:
        rows = {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    reports = rows[TABLES[0]]
    return {
        "rows: reports beyond one an ended worker": max(reports - ended, 0),
        **{f"rows: {table.removeprefix('graceful_')} a report": rows[table] / max(reports, 1) for table in TABLES[1:]},
    }
