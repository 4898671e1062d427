"""Filters of this package's pages."""

from __future__ import annotations

import re

from django import template
from django.utils.html import format_html_join
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

AFTER = re.compile(r"(?<=[._/:@,])(?=[^\W\d_])")
WBR = mark_safe("<wbr>")


@register.filter
def breakable(text: str) -> SafeString:
    """A dotted name or a path, escaped, that a browser breaks after a dot or underscore, not in mid-word."""
    return format_html_join(WBR, "{}", ((part,) for part in AFTER.split(str(text))))
