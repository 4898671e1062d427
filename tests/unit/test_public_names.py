"""The names that ``import graceful`` offers: all there, and not loaded before they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import graceful


def test_each_name_is_there() -> None:
    """Every public name can be imported, and a wrong one is an ordinary error."""
    assert {getattr(graceful, name).__name__ for name in graceful.__all__} == set(graceful.__all__)
    assert set(graceful.__all__) <= set(dir(graceful))
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'"):
        from graceful import no_such_name  # type: ignore[attr-defined]  # noqa: F401


def test_the_import_loads_nothing_heavy() -> None:
    """``import graceful`` loads no Django, and using a name loads neither RQ nor models."""
    code = (
        "import sys, graceful; first = set(sys.modules); graceful.exit_hook, graceful.resumable;"
        "print('django' in first, 'rq' in sys.modules, 'graceful.models' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False", "False"]
