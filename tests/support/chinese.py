"""What a page in Chinese says to people, and which of it is English."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from itertools import chain

from django.test import Client

from graceful.core.records import ShutdownReport
from graceful.reports.story import place_of

SHOWN_ATTRIBUTES = {"title", "aria-label", "alt", "placeholder", "data-label"}
NAMES = re.compile(
    r"(?<![\w-])(?:[Ww]orker|CSV|JSON|ID|Redis|Kubernetes|Docker|ECS|Fargate|Heroku|systemd|django-rq|burst|shutdown|tini|exec|UTC|"
    r"GRACEFUL_\w+|SIG[A-Z]+|terminationGracePeriodSeconds|preStop|stopTimeout|TimeoutStopSec=|resumable|--max-jobs|"
    r"manage\.py archive_reports|except BaseException|except|s|ms|min|MB|p50|p95|p99)(?![\w-])"
)
"""What is the same in Chinese: names, units, and what is written so in code."""


OF_DJANGO = re.compile(r"Search|Model name|Add link|Change or view list link|Filter by .*")
"""Texts of the admin itself that Django has not translated in every version."""


class Texts(HTMLParser):
    """The texts of a page that somebody sees or is read out, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("script", "style")
        self.texts += [value for name, value in attrs if name in SHOWN_ATTRIBUTES and value]

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden and data.strip():
            self.texts.append(" ".join(data.split()))


def texts_of(client: Client, url: str) -> list[str]:
    """The title, and the texts between the page's header and its footer."""
    response = client.get(url, follow=True)
    assert response.status_code == 200, url
    page: str = response.content.decode().replace("<wbr>", "")
    found = re.search(r"<title>(.*?)</title>", page, re.DOTALL)
    assert found is not None
    crumbs = re.search(r'<div class="breadcrumbs">.*?</div>', page, re.DOTALL)
    parser = Texts()
    parser.feed((crumbs[0] if crumbs else "") + page[page.index('<div id="content"') : page.index("</main>")])
    return [found[1].split("|")[0], *parser.texts]


def english(texts: list[str], *reports: ShutdownReport, names: Iterable[str] = ()) -> list[str]:
    """The texts in which a word, or a mark, is left that neither is a name nor comes from a report."""
    foreign = {line.strip() for text in (*names, *chain(*map(from_outside, reports))) for line in text.splitlines()}
    known = re.compile("|".join(re.escape(text) for text in sorted(foreign - {""}, key=len, reverse=True)) or "(?!)")
    left = (text for text in texts if not OF_DJANGO.fullmatch(text))
    return [text for text in left if re.search(r"[A-Za-z]|[\u4e00-\u9fff][.,;:!?]", NAMES.sub("", known.sub("", text)))]


def from_outside(report: ShutdownReport) -> Iterator[str]:
    """What a report's page shows as it is."""
    yield from (report.worker, report.hostname, report.worker_class, report.release, report.notes, report.id)
    yield from (report.signal or "", *report.queues)
    for hook in report.hooks:
        yield from (hook.name, hook.detail, hook.error, hook.traceback, place_of(hook.traceback))
    for job in report.jobs.in_flight:
        yield from (job.id, job.function, job.stack)
