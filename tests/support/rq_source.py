"""A digest of one of RQ's methods, the same in each Python: without comments, docstrings and type hints."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import rq.worker

IGNORED = frozenset({"annotation", "returns", "type_comment", "type_params", "kind", "ctx"})
METHODS = (
    *("work", "bootstrap", "teardown", "stop_scheduler", "unsubscribe", "check_for_suspension"),
    *("should_run_maintenance_tasks", "run_maintenance_tasks", "dequeue_job_and_maintain_ttl", "heartbeat"),
    *("execute_job", "prepare_execution", "fork_work_horse", "monitor_work_horse", "wait_for_horse", "kill_horse"),
    *("maintain_heartbeats", "main_work_horse", "setup_work_horse_signals", "perform_job", "prepare_job_execution"),
    *("handle_execution_ended", "cleanup_execution", "handle_job_success", "handle_job_retry", "handle_job_failure"),
    *("handle_payload", "register_birth", "register_death", "SimpleWorker.execute_job", "SpawnWorker.fork_work_horse"),
)
"""What our classes override, or what calls that: methods of ``Worker`` where nothing else is said."""


def digest_of(method: str) -> str:
    """Digest of a method of the installed RQ."""
    owner, _, name = method.rpartition(".")
    found: Any = getattr(getattr(rq.worker, owner or "Worker"), name)
    function: Callable[..., Any] = found.fget if isinstance(found, property) else found
    # In a block, since a string of several lines in a method keeps textwrap.dedent() from finding its indentation.
    (block,) = ast.parse("if True:\n" + inspect.getsource(function)).body
    assert isinstance(block, ast.If)
    (definition,) = block.body
    return hashlib.sha256(_normal(definition).encode()).hexdigest()[:12]


def _normal(node: Any) -> str:
    if isinstance(node, list):
        return "[" + " ".join(_normal(one) for one in node) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            value = value[1:]
        if name not in IGNORED and value not in (None, []):
            fields.append(f"{name}={_normal(value)}")
    return f"{type(node).__name__}({' '.join(fields)})"
