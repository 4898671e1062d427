"""The demo's jobs, on real input: the Python files of the Django that is installed."""

from __future__ import annotations

import tokenize
from collections import Counter
from pathlib import Path

import django
from rq import get_current_job

import graceful
from demo_project import buffer
from demo_project.models import CheckedFile

SOURCE = Path(django.__file__).parent
TOP = "django"
FILES_BETWEEN_NOTES = 5


def packages() -> list[str]:
    """Django's packages by their first two directories: ``db/models``, ``contrib/admin``, ..."""
    found = {"/".join(path.relative_to(SOURCE).parts[:-1][:2]) or TOP for path in SOURCE.rglob("*.py")}
    return sorted(package for package in found if "locale" not in package)


def files_of(package: str) -> list[Path]:
    """The files of one package, in order; a package of two directories holds those below it too."""
    if package == TOP:
        return sorted(SOURCE.glob("*.py"))
    directory = SOURCE / package
    found = directory.rglob("*.py") if "/" in package else directory.glob("*.py")
    return sorted(path for path in found if "locale" not in path.parts)


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
    paths = files_of(package)
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


def check_all_files() -> str:
    """One long job over all files: it is stopped in the middle, and the next worker goes on at the next file."""
    paths = [path for package in packages() for path in files_of(package)]
    for path in graceful.resumable(paths):
        identifiers_of(path)
        row, _ = CheckedFile.objects.get_or_create(path=str(path.relative_to(SOURCE)))
        row.times += 1
        row.save()
    return f"{len(paths)} files"


def count_tokens() -> int:
    """Reads every file once, in a few seconds: a job that is waited for, since it cannot go on where it was."""
    return sum(identifiers_of(path)[1] for package in packages() for path in files_of(package))
