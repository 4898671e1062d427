"""Text from outside, made fit for a line of a log or a page."""

from __future__ import annotations


def one_line(text: str) -> str:
    """``text`` with every control and format character escaped, line breaks and direction marks among them."""
    return "".join(char if char.isprintable() else escaped(char) for char in text)


def escaped(char: str) -> str:
    """One character as Python's source writes it, in ASCII."""
    return char.encode("unicode_escape").decode("ascii")
