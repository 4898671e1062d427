"""The messages that code and templates ask gettext for, and the catalogs that answer; made without xgettext."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from django.utils.translation.template import templatize

PACKAGE = Path(__file__).parents[2] / "graceful"
CATALOG = PACKAGE / "locale" / "zh_Hans" / "LC_MESSAGES" / "django.po"
"""Simplified Chinese."""
FUNCTIONS = {
    "gettext": ("id",),
    "gettext_noop": ("id",),
    "ngettext": ("id", "plural"),
    "pgettext": ("context", "id"),
    "npgettext": ("context", "id", "plural"),
}
IN_TEMPLATE = re.compile(r"\b(n?p?gettext(?:_noop)?)\(")
STRING = r"u?('(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")"
ARGUMENT = re.compile(rf"\s*,?\s*{STRING}")
ENTRY = re.compile(r'^(msgctxt|msgid|msgid_plural|msgstr(?:\[\d\])?) (".*"(?:\n".*")*)$', re.MULTILINE)


class Message(NamedTuple):
    """What a translation is looked up by."""

    id: str
    plural: str = ""
    context: str = ""

    @property
    def key(self) -> str:
        return f"{self.context}\x04{self.id}" if self.context else self.id


class Translation(NamedTuple):
    """One entry of a catalog."""

    message: Message
    forms: tuple[str, ...]
    flags: str


def messages_of(package: Path = PACKAGE) -> set[Message]:
    """Each message of each Python file and template."""
    found: set[Message] = set()
    for file in sorted(package.rglob("*.py")):
        found.update(_in_python(file))
    for file in sorted(package.rglob("*.html")):
        found.update(_in_template(file))
    return found


def _in_python(file: Path) -> Iterator[Message]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {
        alias.asname or alias.name: alias.name.removesuffix("_lazy")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            fields = FUNCTIONS.get(names.get(node.func.id, ""), ())
            values = dict(zip(fields, node.args, strict=False))
            if values:
                yield Message(**{field: _literal(value, file) for field, value in values.items()})


def _literal(node: ast.expr, file: Path) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise AssertionError(f"{file}:{node.lineno}: a message for gettext has to be a literal")


def _in_template(file: Path) -> Iterator[Message]:
    source = templatize(file.read_text(encoding="utf-8"), origin=str(file))
    for call in IN_TEMPLATE.finditer(source):
        end, values = call.end(), {}
        for field in FUNCTIONS[call[1]]:
            argument = ARGUMENT.match(source, end)
            assert argument is not None, f"{file}: {source[call.start() : call.start() + 80]}"
            values[field], end = ast.literal_eval(argument[1]), argument.end()
        yield Message(**values)


def catalog(file: Path = CATALOG) -> list[Translation]:
    """The entries of a .po file, the header first."""
    found = []
    for block in file.read_text(encoding="utf-8").split("\n\n"):
        fields = {name: "".join(map(ast.literal_eval, lines.split("\n"))) for name, lines in ENTRY.findall(block)}
        if fields:
            message = Message(fields["msgid"], fields.get("msgid_plural", ""), fields.get("msgctxt", ""))
            forms = tuple(value for name, value in sorted(fields.items()) if name.startswith("msgstr"))
            found.append(Translation(message, forms, " ".join(re.findall(r"^#, (.*)$", block, re.MULTILINE))))
    return found
