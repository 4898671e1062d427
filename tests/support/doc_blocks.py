"""The code blocks of the documents; ``python -m tests.support.doc_blocks`` counts them, and says what is not run.

A block is run by a test, or stands under a comment that says why it cannot be: ``<!-- not run: needs a cluster -->``. A
block without a language is output or a picture. Chinese pages have the same blocks as the English ones, which a test
compares.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"^(?: *<!-- not run: (?P<reason>[^\n]+?) -->\n\n?)?(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
RUN = {"console", "python"}
"""Languages whose blocks are run."""
PARSED = {"ini", "json", "toml", "yaml"}
OF_THE_RECIPES = {"dockerfile", "procfile"}
DRAWN = {"mermaid"}
"""A test makes it anew and compares."""
OUTPUT = ""


class Block(NamedTuple):
    page: str
    """Path of the page, relative to the repository."""
    line: int
    language: str
    text: str
    reason: str
    """Why it is not run; empty if it is."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> list[Block]:
    """All of them, page by page."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if not page.name.endswith(".zh.md"):
            text = page.read_text(encoding="utf-8")
            for match in BLOCK.finditer(text):
                body = re.sub(f"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
                line = text.count("\n", 0, match.start("language")) + 1
                found.append(Block(str(page.relative_to(ROOT)), line, match["language"], body, match["reason"] or ""))
    return found


def main() -> None:
    """Print how many there are of each kind."""
    every = blocks()
    kinds = Counter("not run" if each.reason else each.language or "output" for each in every)
    print(f"{len(every)} code blocks: {', '.join(f'{count} {kind}' for kind, count in kinds.most_common())}")
    for each in every:
        if each.reason:
            print(f"not run: {each.place}: {each.reason}")


if __name__ == "__main__":
    main()
