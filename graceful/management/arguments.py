"""Arguments that several commands take."""

from __future__ import annotations

import argparse

from graceful.models import NAME_LENGTH


def positive_number(text: str) -> int:
    """An argument that must be a whole number above zero."""
    if not (text.isdecimal() and 0 < len(text) < 7 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to 999999 was expected, got: {text!r}")
    return int(text)


def release_label(text: str) -> str:
    """An argument that must be the label of a release."""
    if not text or len(text) > NAME_LENGTH or "\x00" in text:
        raise argparse.ArgumentTypeError(f"a label of 1 to {NAME_LENGTH} characters was expected, got: {text!r}")
    return text
