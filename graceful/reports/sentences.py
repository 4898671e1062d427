"""Sentences and lists put together as the current language does it: Chinese has no space after a full stop."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from django.utils.translation import gettext as _


def sentences(parts: Iterable[str]) -> str:
    """Whole sentences, one after the other; empty ones are left out."""
    # Translators: two sentences of a paragraph.
    return _joined(_("%(first)s %(second)s"), parts)


def listed(parts: Iterable[str]) -> str:
    """An enumeration: ``1 killed, 2 forced``; empty parts are left out."""
    # Translators: two members of an enumeration.
    return _joined(_("%(first)s, %(second)s"), parts)


def _joined(form: str, parts: Iterable[str]) -> str:
    texts = [text for text in parts if text]
    return reduce(lambda first, second: form % {"first": first, "second": second}, texts) if texts else ""
