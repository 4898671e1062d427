"""Python blocks of the documents are executed; what belongs to the reader's project is a stand-in, by name.

Each runs in a process of its own, so that hooks and signal handlers that it registers are gone afterwards.
"""

from __future__ import annotations

import builtins
import dis
import os
import re
import sys
import threading
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from django.db import models
from django.test import override_settings
from django.urls import include, path

import graceful
import graceful.jobs
from graceful.checks import check_hooks, check_settings
from tests.support.doc_blocks import DRAWN, OF_THE_RECIPES, OUTPUT, PARSED, RUN, Block, blocks

IN_THE_TUTORIAL = "docs/tutorial.md"
"""It is run from its first block to its last (tests/process/test_tutorial.py)."""
FILE = re.compile(r"^# ([\w/]+)\.py$", re.MULTILINE)
PACKAGES = ["shop", "shop.counters", "shop.hooks", "sentry_sdk", "django.tasks"]
"""Packages that a block may import: stand-ins, since they are the reader's or need a network or a queue."""
READERS = (
    "Customer Payment Product Reader Shop amount api caches_to_refresh card charge client cluster counters "
    "create_invoice days flush_spans gateway in_cluster job order orders parcels_of pool print_label registry send "
    "send_newsletter statsd store urlpatterns work"
)
"""Names of the reader's project: a block may use these without defining them, and no others."""


def python() -> list[Any]:
    found = [
        each for each in blocks() if each.language == "python" and each.page != IN_THE_TUTORIAL and not each.reason
    ]
    return [pytest.param(each, id=each.place) for each in found]


@pytest.mark.parametrize("block", python())
def test_python(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs; its functions use no name that is not there; its settings are valid."""
    (tmp_path / "huge.csv").write_text("id\n1\n")
    monkeypatch.chdir(tmp_path)
    in_a_process_of_its_own(lambda: execute(block))


def test_every_block_is_run_or_says_why_not() -> None:
    """A block is in a language that is run or parsed, or it is output, in which there is nothing to run."""
    known = RUN | PARSED | OF_THE_RECIPES | DRAWN | {OUTPUT}
    every = blocks()
    assert [each.place for each in every if each.language not in known and not each.reason] == []
    assert [
        each.place for each in every if each.language == OUTPUT and re.search(r"^\s*(\$ |.*manage\.py )", each.text)
    ] == []
    assert [each.place for each in every if each.language == "console" and not each.text.startswith("$ ")] == []
    assert len({each.page for each in every}) > 25


def execute(block: Block) -> None:
    for name in PACKAGES:
        sys.modules[name] = MagicMock(name=name)
    names: dict[str, Any] = {each: MagicMock(name=each) for each in READERS.split()}
    names |= {"graceful": graceful, "os": os, "threading": threading, "path": path, "include": include}
    names |= {"INSTALLED_APPS": [], "Order": order_model()}
    parts = FILE.split(block.text)
    code = {"settings": "", "": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))
    for file, text in reversed(code.items()):  # Settings last: they name what the other files define.
        own = dict(names)
        run(text, f"{block.place} {file}", own)
        if file and file != "settings":
            module = types.ModuleType(file.replace("/", "."))
            module.__dict__.update(own)
            sys.modules[module.__name__] = module
        settings = {name: value for name, value in own.items() if name.startswith("GRACEFUL_")}
        with override_settings(**settings):
            problems = [*check_settings(), *check_hooks()]
        assert [each for each in problems if each.is_serious()] == []


def order_model() -> Any:
    """A real model: ``resumable`` looks at the fields by which it sorts."""

    class Order(models.Model):
        created_at = models.DateTimeField()

        class Meta:
            app_label = "shop"

    return Order


def run(text: str, place: str, names: dict[str, Any]) -> None:
    try:
        code = compile(text, place, "exec")
    except SyntaxError as error:
        if "outside function" not in str(error):
            raise
        inner = "\n".join(f"    {line}" for line in text.splitlines())
        code = compile(f"def block():\n{inner}\nblock()", place, "exec")
    before = set(names)
    exec(code, names)
    missing = sorted(name for name in globals_of(code) if name not in names and not hasattr(builtins, name))
    assert missing == [], f"{place} uses {missing}; it had {sorted(set(names) - before)}"


def globals_of(code: types.CodeType) -> Iterator[str]:
    """The global names that the functions in it use."""
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from (str(step.argval) for step in dis.get_instructions(each) if step.opname == "LOAD_GLOBAL")
            yield from globals_of(each)


def in_a_process_of_its_own(function: Callable[[], None]) -> None:
    """Run it in a fork; an error there fails the test here, with its traceback."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            function()
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        error = pipe.read().decode()
    assert os.waitpid(child, 0)[1] == 0
    assert not error, error
