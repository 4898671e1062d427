"""Arguments that several commands take."""

from __future__ import annotations

import argparse
import math

from graceful.models import NAME_LENGTH

LONGEST_SECONDS = 7 * 24 * 3600


def positive_number(text: str) -> int:
    """An argument that must be a whole number above zero."""
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 7 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1 to 999999 was expected, got: {text!r}")
    return int(text)


def release_label(text: str) -> str:
    """An argument that must be the label of a release."""
    if not text or len(text) > NAME_LENGTH or "\x00" in text:
        raise argparse.ArgumentTypeError(f"a label of 1 to {NAME_LENGTH} characters was expected, got: {text!r}")
    return text


def seconds(text: str) -> float:
    """An argument that must be a number of seconds above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST_SECONDS:
        raise argparse.ArgumentTypeError(f"seconds above 0, at most {LONGEST_SECONDS}, were expected, got: {text!r}")
    return value
