"""Code blocks of the documents: Python compiles and names what exists, commands have the options, data can be parsed.

What can be run is run too: test_code_blocks_run.py here, test_commands_of_documents.py and test_tutorial.py in
tests/process, and the files of the recipes in the recipes tier.
"""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import tomllib
from importlib import import_module
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class

from tests.support.doc_blocks import Block, blocks

MANAGE = re.compile(r"(?:manage\.py|django) ([a-z_]+)((?: [^|>&;#`\n]*)?)")


def of(language: str) -> Any:
    return pytest.mark.parametrize(
        "block", [pytest.param(each, id=each.place) for each in blocks() if each.language == language]
    )


@of("python")
def test_python(block: Block) -> None:
    """It compiles, and whatever it names of this package is there."""
    tree = ast.parse(block.text, block.place)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "graceful":
            for alias in node.names:
                resolve(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "graceful":
                    import_module(alias.name)
        elif isinstance(node, ast.Attribute) and (path := dotted(node)).startswith("graceful."):
            resolve(path)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"graceful(\.\w+){2,}", str(node.value)):
            resolve(str(node.value))


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def resolve(path: str) -> None:
    """Import what a dotted path names."""
    module, _, name = path.rpartition(".")
    try:
        import_module(path)
    except ImportError:
        assert hasattr(import_module(module), name), path


def commands() -> list[Any]:
    found = []
    for block in blocks():
        if block.language in ("console", "ini", "yaml", "dockerfile", "procfile", ""):
            text = re.sub(r"\\\n\s*", " ", block.text)
            found += [
                pytest.param(name, options, id=f"{block.place}-{name}")
                for name, options in MANAGE.findall(re.sub(r'",\s*"', " ", text))
                if name in get_commands()
            ]
    return found


@pytest.mark.parametrize(("name", "options"), commands())
def test_commands(name: str, options: str) -> None:
    """Each option that a block gives to a command is one of that command's."""
    command = load_command_class(get_commands()[name], name)
    known = {string for action in command.create_parser("manage.py", name)._actions for string in action.option_strings}
    for word in shlex.split(options.replace("'", "").replace('"', "")):
        if word.startswith("--") and len(word) > 2:
            assert word.partition("=")[0].rstrip("]").rstrip(",") in known, word


@of("json")
def test_json(block: Block) -> None:
    """It can be parsed."""
    json.loads(block.text)


@of("yaml")
def test_yaml(block: Block) -> None:
    """It can be parsed."""
    assert list(yaml.safe_load_all(block.text))


@of("toml")
def test_toml(block: Block) -> None:
    """It can be parsed."""
    assert tomllib.loads(block.text)


@of("ini")
def test_ini(block: Block) -> None:
    """It can be parsed."""
    parser = configparser.RawConfigParser(strict=False, allow_no_value=True)
    parser.read_string(block.text)
    assert parser.sections()
