"""The documents for engineers describe the code as it is: its files, states and log lines."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.support import state_diagram

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLACES = (ROOT, ROOT / "graceful", ROOT / "graceful" / "worker")


def files_named(text: str) -> list[str]:
    return re.findall(r"`([\w/.]+\.py)`", text)


@pytest.mark.parametrize("page", ["architecture.md", "how-it-works.md"])
def test_files_named_exist(page: str) -> None:
    """Each file that the page names is there."""
    names = files_named((ROOT / "docs" / page).read_text())
    assert len(names) > 10
    assert [name for name in names if not any((place / name).is_file() for place in PLACES)] == []


def test_state_diagram_is_current() -> None:
    """The state diagram is what the state machine does; ``python -m tests.support.state_diagram`` draws it anew."""
    page = state_diagram.PAGE.read_text()
    assert "stateDiagram-v2" in page
    assert page == state_diagram.with_diagram(page)


def test_links_lead_somewhere() -> None:
    """Each link from one document to another, or to a heading, has its target."""
    texts = ("README.md", "README.zh-hans.md", "CHANGELOG.md", "CONTRIBUTING.md")
    pages = [*(ROOT / name for name in texts), *sorted((ROOT / "docs").rglob("*.md"))]
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
