"""What keeps a release back, and what the package says of itself."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.release.build import ReleaseError, compare
from tests.release.refusals import refusals

ROOT = Path(__file__).parents[2]
CHANGELOG = "# Changelog\n\n## [1.2.3] - 2026-03-01\n"


def git(root: Path, *arguments: str) -> None:
    who = [
        "-c",
        "user.name=x",
        "-c",
        "user.email=x@example.org",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "tag.gpgsign=false",
    ]
    subprocess.run(["git", *who, "-C", str(root), *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository that can be released."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "All")
    return tmp_path


def commit(root: Path) -> None:
    git(root, "commit", "--quiet", "--all", "--message", "More")


def test_a_clean_checkout_with_an_entry_is_released(checkout: Path) -> None:
    """Nothing speaks against it, with and without the tag."""
    assert refusals(checkout, tagged=False) == []
    git(checkout, "tag", "v1.2.3")
    assert refusals(checkout, tagged=True) == []


def test_a_dirty_tree_is_not_released(checkout: Path) -> None:
    """A file that is not committed is named."""
    (checkout / "new.py").touch()
    assert refusals(checkout, tagged=False) == ["Files are not committed:\n?? new.py"]


def test_a_version_is_released_once(checkout: Path) -> None:
    """A tag that exists keeps the release back."""
    git(checkout, "tag", "v1.2.3")
    assert refusals(checkout, tagged=False) == ["The tag v1.2.3 exists already."]


def test_a_tag_of_another_commit_is_not_released(checkout: Path) -> None:
    """Where the tag has to be there, it has to be on this commit."""
    assert refusals(checkout, tagged=True) == ["The tag v1.2.3 is not on this commit."]
    git(checkout, "tag", "v1.2.3")
    git(checkout, "commit", "--quiet", "--allow-empty", "--message", "Later")
    assert refusals(checkout, tagged=True) == ["The tag v1.2.3 is not on this commit."]


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("# Changelog\n\n## [1.2.2] - 2026-01-01\n", "CHANGELOG.md has no entry for 1.2.3."),
        ("# Changelog\n\n## [1.2.3] - unreleased\n", "CHANGELOG.md gives 1.2.3 no date, but: unreleased."),
    ],
    ids=["no entry", "no date"],
)
def test_a_version_needs_its_entry(checkout: Path, text: str, refusal: str) -> None:
    """The changelog has to have an entry with a date."""
    (checkout / "CHANGELOG.md").write_text(text)
    commit(checkout)
    assert refusals(checkout, tagged=False) == [refusal]


def test_what_is_no_checkout_is_not_released(tmp_path: Path) -> None:
    """Outside git nothing is known of what would be released."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    assert refusals(tmp_path, tagged=False) == ["This is not a git checkout."]


def test_builds_that_differ_are_told(tmp_path: Path) -> None:
    """A build that comes out otherwise the second time is no release."""
    first, second = tmp_path / "a.whl", tmp_path / "b.whl"
    first.write_bytes(b"1")
    second.write_bytes(b"1")
    compare(first, second)
    second.write_bytes(b"2")
    with pytest.raises(ReleaseError, match=r"a\.whl differs"):
        compare(first, second)


def test_classifiers_are_what_ci_tests() -> None:
    """Python and Django versions are promised as far as .ci/run has them, and the lowest as far as it is tried."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    checks = (ROOT / ".ci/run").read_text()
    tested = set(re.findall(r'^tests "[^"]*Python (3\.\d+)|^ +tests "Python (3\.\d+)', checks, re.MULTILINE))
    pythons = {name.rpartition(" ")[2] for name in classifiers if re.fullmatch(r".*:: 3\.\d+", name)}
    assert pythons == {one or other for one, other in tested}
    djangos = {name.rpartition(" ")[2] for name in classifiers if name.startswith("Framework :: Django :: ")}
    assert djangos == set(re.findall(r"Django (\d\.\d)", checks))


def test_actions_of_hosted_workflows_are_pinned() -> None:
    """A tag of somebody else's action can be moved, a commit cannot."""
    used = [
        line
        for path in (ROOT / ".github/workflows").glob("*.yml")
        for line in re.findall(r"uses: (.*)", path.read_text())
        if not line.startswith("./")
    ]
    assert used
    for line in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line
