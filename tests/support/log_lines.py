"""Collects every log line of the package from its source, for docs/log-lines.md.

``python -m tests.support.log_lines`` brings the table up to date: it keeps the meanings, adds new lines with an empty
meaning, and prints the rows of lines that no longer exist.
"""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "log-lines.md"
LEVELS = {
    "critical": "CRITICAL",
    "exception": "ERROR",
    "error": "ERROR",
    "warning": "WARNING",
    "info": "INFO",
    "debug": "DEBUG",
    "log": "varies",
}
HEAD = "| level | logger | line | meaning |\n|---|---|---|---|\n"
ROW = re.compile(r"^\| (\w+) \| `([\w.]+)` \| `(.+?)` \| (.*?) ?\|$", re.MULTILINE)
WORKERS_OWN_LOGGER = "rq.worker"
"""The logger of RQ's ``worker.log`` (rq/worker/base.py)."""


class LogLine(NamedTuple):
    level: str
    """``varies`` where the level is computed."""
    logger: str
    line: str
    """The format string, as it stands in a row of the table."""


def collect() -> set[LogLine]:
    """Every log call of the package.

    Raises:
        ValueError: the line or the logger of a call cannot be told from the source.
    """
    found = set()
    for path in sorted((ROOT / "graceful").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(_tree(module)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                logger = _logger(module, node.func.value)
                if logger:
                    message = node.args[1 if node.func.attr == "log" else 0]
                    level = LEVELS[node.func.attr]
                    found |= {LogLine(level, logger, _cell(line)) for line in _strings(module, message)}
    return found


def rows(page: str) -> dict[LogLine, str]:
    """The meanings in a page, by log line."""
    return {LogLine(*row[:3]): row[3] for row in ROW.findall(page)}


def with_table(page: str) -> str:
    """The page with its table brought up to date."""
    before, _, rest = page.partition(HEAD)
    after = rest.partition("\n\n")[2] if "\n\n" in rest else ""
    meanings = rows(page)
    ranks = list(LEVELS.values())
    lines = sorted(collect(), key=lambda each: (each.logger, ranks.index(each.level), each.line))
    table = "".join(
        f"| {each.level} | `{each.logger}` | `{each.line}` | {meanings.get(each, '')} |\n" for each in lines
    )
    return f"{before}{HEAD}{table}" + (f"\n{after}" if after else "")


@cache
def _tree(module: str) -> ast.Module:
    path = ROOT.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def _named(module: str, name: str) -> tuple[str, ast.expr | None] | None:
    """What a module-level name stands for: the module, and the expression in it, or None for the module itself."""
    for node in _tree(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return module, node.value
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("graceful"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    inner = f"{node.module}.{alias.name}"
                    path = ROOT.joinpath(*inner.split("."))
                    if path.is_dir() or path.with_suffix(".py").is_file():
                        return inner, None
                    return _named(node.module or "", alias.name)
    return None


def _resolved(module: str, node: ast.expr) -> tuple[str, ast.expr]:
    """An expression behind the names of constants, ``LINE`` or ``log.LINE``, with the module that it stands in."""
    if isinstance(node, ast.Name):
        target = _named(module, node.id)
        if target is not None and target[1] is not None:
            return target[0], target[1]
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        target = _named(module, node.value.id)
        if target is not None and target[1] is None:
            return _resolved(target[0], ast.Name(node.attr))
    return module, node


def _strings(module: str, node: ast.expr) -> Iterator[str]:
    module, node = _resolved(module, node)
    if isinstance(node, ast.IfExp):
        yield from _strings(module, node.body)
        yield from _strings(module, node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        raise ValueError(f"{module}: a log line has to be a string or the name of one: {ast.unparse(node)}")


def _logger(module: str, node: ast.expr) -> str:
    """Name of the logger that an expression is, empty if it is none."""
    module, node = _resolved(module, node)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("getLogger"):
        return next(_strings(module, node.args[0]))
    if isinstance(node, ast.Attribute) and node.attr == "log":
        return WORKERS_OWN_LOGGER
    if ast.unparse(node).endswith(("log", "logger", "logging")):
        raise ValueError(f"{module}: which logger is {ast.unparse(node)}?")
    return ""


def _cell(line: str) -> str:
    return line.replace("\\", "\\\\").replace("\n", "\\n").replace("|", "\\|")


if __name__ == "__main__":
    page = PAGE.read_text()
    current = collect()
    for gone, meaning in rows(page).items():
        if gone not in current:
            print(f"gone: {gone.level} {gone.line} -> {meaning}")
    PAGE.write_text(with_table(page))
    for each, meaning in rows(PAGE.read_text()).items():
        if not meaning:
            print(f"no meaning yet: {each.level} {each.line}")
