"""Dumps of real servers, as the chaos suite leaves them at rest, against the invariants that need no books.

A dump is a JSON file: ``{"queues": [...], "keys": {name: [kind, content, ttl]}}``; :func:`dump` writes one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import redis

from tests.model import invariants
from tests.model.engine import Key, Keys, Server, World
from tests.model.explorer import Plan

WITHOUT_BOOKS = (
    invariants.one_place,
    invariants.queued_jobs_stay,
    invariants.the_dead_do_not_beat,
    invariants.held_both_ways,
    invariants.executions_agree,
)


def dump(client: redis.Redis, queues: list[str], path: Path) -> None:
    """Write what a server holds."""
    view = Server(client).take().view
    keys = {name: [key.kind, _plain(key.content), key.ttl] for name, key in view.items()}
    path.write_text(json.dumps({"queues": queues, "keys": keys}))


def _plain(content: Any) -> Any:
    return sorted(content) if isinstance(content, frozenset) else content


def broken(path: Path) -> list[tuple[str, str]]:
    """What is not as it must be in a dump of a server at rest."""
    text = json.loads(path.read_text())
    view = {}
    for name, (kind, content, ttl) in text["keys"].items():
        restored = frozenset(content) if kind == "set" else tuple(content) if kind == "list" else content
        view[name] = Key(kind, restored, ttl)
    plan = Plan("replayed", str(path), (), queues=tuple(text["queues"]))
    keys, world = Keys(view, (), b""), World()
    return [(each.__name__, detail) for each in WITHOUT_BOOKS for detail in each(world, keys, plan)]


def report(path: Path) -> int:
    """Print what is broken; returns 1 if something is."""
    found = broken(path)
    for name, detail in found:
        print(f"{path}: {name}: {detail}")
    return int(bool(found))
