"""The demo's jobs, on real input: the Python files of the Django that is installed."""

from __future__ import annotations

import tokenize
from collections import Counter
from pathlib import Path

import django
from rq import get_current_job

from demo_project import buffer

SOURCE = Path(django.__file__).parent
FILES_BETWEEN_NOTES = 5


def packages() -> dict[str, list[Path]]:
    """The files of Django by package, named by the first two directories: ``db/models``, ``contrib/admin``, ..."""
    found: dict[str, list[Path]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        directories = path.relative_to(SOURCE).parts[:-1]
        if "locale" not in directories:
            found.setdefault("/".join(directories[:2]) or "django", []).append(path)
    return found


def identifiers_of(path: Path) -> tuple[Counter[str], int]:
    """How often each name stands in a file, and how many tokens the file has."""
    names: Counter[str] = Counter()
    tokens = 0
    with tokenize.open(path) as source:
        for token in tokenize.generate_tokens(source.readline):
            tokens += 1
            if token.type == tokenize.NAME:
                names[token.string] += 1
    return names, tokens


def count_identifiers(package: str) -> str:
    """Read one package and leave its counts in the buffer; the horse exit hook writes them to the database."""
    job = get_current_job()
    paths = packages()[package]
    names: Counter[str] = Counter()
    tokens = 0
    for done, path in enumerate(paths, start=1):
        found, length = identifiers_of(path)
        names += found
        tokens += length
        if job and done % FILES_BETWEEN_NOTES == 0:
            job.meta["files_read"] = done
            job.save_meta()
    buffer.add(package, files=len(paths), tokens=tokens, names=names)
    return f"{len(names)} identifiers in {len(paths)} files"
