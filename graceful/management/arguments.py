"""Arguments that several commands take."""

from __future__ import annotations

import argparse


def positive_number(text: str) -> int:
    """An argument that must be a whole number above zero."""
    if not (text.isdecimal() and 0 < len(text) < 7 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to 999999 was expected, got: {text!r}")
    return int(text)
