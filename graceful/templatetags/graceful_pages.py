"""Filters of this package's pages."""

from __future__ import annotations

import re

from django import template
from django.utils.html import format_html_join
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

AFTER = re.compile(r"(?<=[._/:@,])(?=[^\W\d_])")
PIECES = re.compile(r"(?:\s+|\S{1,40}(?!\S))+|\S{40}")
"""Words of up to 40 characters, and parts of longer ones: a table gets as wide as its longest word."""
WBR = mark_safe("<wbr>")


@register.filter
def breakable(text: str) -> SafeString:
    """A dotted name or a path, escaped, that a browser breaks after a dot or underscore, or after 40 characters."""
    pieces = (piece for part in AFTER.split(str(text)) for piece in PIECES.findall(part))
    return format_html_join(WBR, "{}", ((piece,) for piece in pieces))
