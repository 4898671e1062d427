"""Chinese pages have the content of the English ones: whoever changes one of them is told to change the other."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES_IN_A_PICTURE = re.compile(r"\d+ s\b|`[^`]+`|\b[A-Z]{2,}\b|\b(?:[A-Z][a-z]+){2,}\b")
LINK = re.compile(r"\]\(([^)]+)\)")
CODE = re.compile(r"`([^`]+)`")
NAME = re.compile(r"graceful\.[EW]\d{3}|\bEX_[A-Z]+|\bSIG[A-Z]+|\bdocs/[\w./-]+")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Section(NamedTuple):
    level: int
    title: str
    text: str
    """Without its code blocks."""
    blocks: list[tuple[str, list[str]]]
    """Language, and lines without comments."""


def sections(name: str) -> list[Section]:
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks: list[tuple[str, list[str]]] = []

    def keep(match: re.Match[str]) -> str:
        blocks.append((match[1], without_prose(match[2])))
        return f"\0{len(blocks) - 1}\0"

    parts = re.split(r"^(#+) (.+)$", FENCE.sub(keep, text), flags=re.MULTILINE)
    assert parts[0] == ""
    found = []
    for hashes, title, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        own = [blocks[int(number)] for number in re.findall(r"\0(\d+)\0", body)]
        found.append(Section(len(hashes), title, re.sub(r"\0\d+\0", "", body), own))
    return found


def without_prose(block: str) -> list[str]:
    """The lines of a code block without comments; of a picture, the times and names in it."""
    if "│" in block:
        return NAMES_IN_A_PICTURE.findall(block)
    return [re.sub(r"(^|\s+)# .*$", "", line) for line in block.splitlines()]


def names(pattern: re.Pattern[str], section: Section) -> set[str]:
    """What matches; a line break in it is a space."""
    return {" ".join(name.split()) for name in pattern.findall(section.text)}


def anchor(title: str) -> str:
    """The id that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


ENGLISH, CHINESE = sections("README.md"), sections("README.zh-hans.md")
PAGES = {"README.md": "README.zh-hans.md"} | {
    f"docs/{page.name.removesuffix('.zh.md')}.md": f"docs/{page.name}"
    for page in sorted((ROOT / "docs").glob("*.zh.md"))
    if page.name != "api.zh.md"  # Of docstrings, which are in English.
}
COUPLES = [
    (page, *couple)
    for page, chinese in PAGES.items()
    for couple in zip(sections(page), sections(chinese), strict=False)
]
ANCHORS = {f"#{anchor(chinese.title)}": f"#{anchor(english.title)}" for _, english, chinese in COUPLES}
PAIRS = [pytest.param(english, chinese, id=f"{page}-{anchor(english.title)}") for page, english, chinese in COUPLES]


@pytest.mark.parametrize(("english", "chinese"), PAGES.items())
def test_same_headings(english: str, chinese: str) -> None:
    """Both have the same headings, by number, order and level."""
    assert [each.level for each in sections(chinese)] == [each.level for each in sections(english)]


def test_each_links_to_the_other() -> None:
    """The first lines of each lead to the other language."""
    assert LINK.findall(ENGLISH[0].text)[0] == "README.zh-hans.md"
    assert LINK.findall(CHINESE[0].text)[0] == "README.md"


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_same_code_blocks(english: Section, chinese: Section) -> None:
    """A section has the same code blocks in both, but for the comments."""
    assert chinese.blocks == english.blocks


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_same_names(english: Section, chinese: Section) -> None:
    """A section names the same settings, commands, files, signals, checks and exit codes in both."""
    for pattern in (CODE, NAME):
        assert names(pattern, chinese) == names(pattern, english)


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_same_figures(english: Section, chinese: Section) -> None:
    """A section has the same figures in both: defaults, times, versions, measurements."""
    assert set(NUMBER.findall(chinese.text)) == set(NUMBER.findall(english.text))


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_same_links(english: Section, chinese: Section) -> None:
    """A section has the same links in both; a link to a section of the page itself leads to that section."""
    if english == ENGLISH[0]:
        return
    found = (link.replace(".zh.md", ".md") for link in LINK.findall(chinese.text))
    links = Counter(re.sub("#.*", lambda target: ANCHORS.get(target[0], target[0]), link) for link in found)
    assert links == Counter(LINK.findall(english.text))


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_same_form(english: Section, chinese: Section) -> None:
    """A section has as many rows of tables, list items and bold phrases in both."""
    for mark in (r"^\|", r"^- ", r"^\d+\. ", r"\*\*"):
        assert len(re.findall(mark, chinese.text, re.MULTILINE)) == len(re.findall(mark, english.text, re.MULTILINE))
    columns = [line.count("|") for line in english.text.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in chinese.text.splitlines() if line.startswith("|")] == columns


def test_no_paragraph_is_left_in_english() -> None:
    """Each paragraph, row and list item is in Chinese, unless it is nothing but code and names."""
    for section in [section for page in PAGES.values() for section in sections(page)]:
        for line in section.text.splitlines():
            prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)
            assert re.search(r"[\u4e00-\u9fff]", prose) or len(re.findall(r"[A-Za-z]{2,}", prose)) < 6, line
