"""The files that stand in the documents, as code blocks."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of one language in a page, for instance ``recipes/docker``."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return [body for kind, body in BLOCK.findall(text) if kind == language]


def only(page: str, language: str) -> str:
    """The one code block of a language in a page."""
    (found,) = blocks(page, language)
    return found
