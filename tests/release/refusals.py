"""Why the checkout cannot be released as it is."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

ENTRY = re.compile(r"^## \[(?P<version>[^]]+)\] - (?P<date>.+)$", re.MULTILINE)


def version_of(root: Path) -> str:
    """The version, from the one place that has it."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def tag_of(version: str) -> str:
    return f"v{version}"


def git(root: Path, *arguments: str) -> str:
    """What git prints.

    Raises:
        subprocess.CalledProcessError: git failed, for instance because this is no checkout.
    """
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def refusals(root: Path, *, tagged: bool) -> list[str]:
    """Whole sentences, none if it can be released.

    Args:
        root: the checkout.
        tagged: the tag has been pushed already, so that it must be on this commit; otherwise it must not exist.
    """
    version = version_of(root)
    return [*_changelog(root, version), *_repository(root, tag_of(version), tagged=tagged)]


def _changelog(root: Path, version: str) -> list[str]:
    dates = {entry["version"]: entry["date"] for entry in ENTRY.finditer((root / "CHANGELOG.md").read_text())}
    if version not in dates:
        return [f"CHANGELOG.md has no entry for {version}."]
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", dates[version]):
        return [f"CHANGELOG.md gives {version} no date, but: {dates[version]}."]
    return []


def _repository(root: Path, tag: str, *, tagged: bool) -> list[str]:
    try:
        changed = git(root, "status", "--porcelain")
        head = git(root, "rev-parse", "HEAD")
        tags = git(root, "tag", "--list", tag)
        commit = git(root, "rev-list", "--max-count=1", tag, "--") if tags else ""
    except (OSError, subprocess.CalledProcessError):
        return ["This is not a git checkout."]
    found = []
    if changed:
        found.append(f"Files are not committed:\n{changed}")
    if tagged and commit != head:
        found.append(f"The tag {tag} is not on this commit.")
    if not tagged and tags:
        found.append(f"The tag {tag} exists already.")
    return found
