"""The documents for engineers describe the code as it is: its files, states and log lines."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.support import state_diagram

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PLACES = (ROOT, ROOT / "graceful", ROOT / "graceful" / "worker")


def files_named(text: str) -> list[str]:
    return re.findall(r"`([\w/.]+\.py)`", text)


@pytest.mark.parametrize("page", ["docs/architecture.md", "README.md"])
def test_files_named_exist(page: str) -> None:
    """Each file that the page, or the README's "How it works", names is there."""
    text = (ROOT / page).read_text()
    if page == "README.md":
        text = text.partition("\n## How it works\n")[2].partition("\n## ")[0]
    names = files_named(text)
    assert len(names) > 10
    assert [name for name in names if not any((place / name).is_file() for place in PLACES)] == []


def test_state_diagram_is_current() -> None:
    """The state diagram is what the state machine does; ``python -m tests.support.state_diagram`` draws it anew."""
    page = state_diagram.PAGE.read_text()
    assert "stateDiagram-v2" in page
    assert page == state_diagram.with_diagram(page)


def test_links_lead_somewhere() -> None:
    """Each link from one document to another, or to a heading, has its target."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
    anchors = {page: headings(page.read_text()) for page in pages}
    broken = []
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            if not file.is_file() or (anchor and anchor not in anchors[file]):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def headings(text: str) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
