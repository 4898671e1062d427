"""The Simplified Chinese catalog has everything that the pages say, and its compiled form is of today."""

from __future__ import annotations

import gettext
import re
from collections import Counter

from django.utils.translation import gettext as translated
from django.utils.translation import ngettext, override, pgettext

from graceful.labels import LABELS
from graceful.reports.sentences import listed, sentences
from tests.support.messages import CATALOG, Message, catalog, messages_of

HEADER, *ENTRIES = catalog()
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[a-z%]")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
WITHOUT_WORDS = {
    *("CSV", "JSON", "worker", "Worker", "id"),
    *("%(done)d", "%(done)d of %(total)d", "%(taken)s of %(allowed)s", "%(count)d %(outcome)s"),
    *("%(jobs)s.", "%(day)s: %(facts)s"),
    *("%(first)s %(second)s", "%(first)s, %(second)s"),
}
"""Names, and forms that only put values together."""


def test_every_message_is_in_the_catalog() -> None:
    """Each message of the code and the templates has an entry; ``make messages`` adds it."""
    assert sorted(messages_of() - {entry.message for entry in ENTRIES}) == []


def test_the_catalog_has_no_other_message() -> None:
    """Each entry is a message that something asks for, once."""
    assert sorted({entry.message for entry in ENTRIES} - messages_of()) == []
    assert [key for key, times in Counter(entry.message.key for entry in ENTRIES).items() if times > 1] == []
    assert "#~" not in CATALOG.read_text(encoding="utf-8")


def test_the_catalog_is_complete() -> None:
    """No entry is a guess of msgmerge, and none is empty."""
    assert [entry for entry in ENTRIES if "fuzzy" in entry.flags] == []
    assert [entry for entry in ENTRIES if not entry.forms or not all(entry.forms)] == []


def test_translations_have_the_placeholders_of_their_messages() -> None:
    """Each placeholder stands in the translation as often as in the message, so that no page fails or loses a value."""
    wrong = [
        form
        for message, forms, _flags in ENTRIES
        for form in forms
        if Counter(PLACEHOLDER.findall(form)) != Counter(PLACEHOLDER.findall(message.plural or message.id))
    ]
    assert wrong == []


def test_translations_are_chinese() -> None:
    """Each translation is in Chinese, with the marks of Chinese, and with spaces around what is Latin in it."""
    texts = [PLACEHOLDER.sub("x", form) for entry in ENTRIES for form in entry.forms]
    assert [text for text in texts if re.search(r"[\u4e00-\u9fff][,.;:!?()]|[,;!?()][\u4e00-\u9fff]", text)] == []
    assert [text for text in texts if re.search(r"[\u4e00-\u9fff][A-Za-z0-9]|[A-Za-z0-9][\u4e00-\u9fff]", text)] == []
    english = [message.id for message, forms, _flags in ENTRIES if not all(map(CHINESE.search, forms))]
    assert set(english) <= WITHOUT_WORDS


def test_a_translation_is_what_is_shown() -> None:
    """Django, or an app of it, has no other translation of the same message, which would be shown instead of ours."""
    with override("zh-hans"):
        shown = {entry.message: _shown(entry.message) for entry in ENTRIES}
    forms = {entry.message: entry.forms for entry in ENTRIES}
    assert {message: text for message, text in shown.items() if text != forms[message][0]} == {}


def _shown(message: Message) -> str:
    if message.plural:
        return ngettext(message.id, message.plural, 2)
    return pgettext(message.context, message.id) if message.context else translated(message.id)


def test_the_compiled_catalog_is_of_today() -> None:
    """django.mo, which is what is read, says what django.po says; ``make messages`` compiles it."""
    with CATALOG.with_suffix(".mo").open("rb") as file:
        compiled = dict(gettext.GNUTranslations(file)._catalog)  # type: ignore[attr-defined]
    compiled.pop("")
    expected: dict[str | tuple[str, int], str] = {}
    for message, forms, _flags in ENTRIES:
        for number, form in enumerate(forms):
            expected[(message.key, number) if message.plural else message.key] = form
    assert compiled == expected


def test_the_catalog_says_how_its_language_forms_plurals() -> None:
    """Chinese has one form for all numbers."""
    assert "nplurals=1; plural=0;" in HEADER.forms[0]
    assert {len(entry.forms) for entry in ENTRIES} == {1}


def test_words_are_shown_in_chinese() -> None:
    """Outcomes, reasons and phases are in the language of the request."""
    with override("zh-hans"):
        assert {word for words in LABELS.values() for word in words.values() if not CHINESE.search(str(word))} == set()
        assert translated("Last shutdown report") == "最近一份停机报告"


def test_sentences_and_lists_are_joined_as_the_language_does_it() -> None:
    """English puts a space between sentences and a comma into lists, Chinese has marks of its own."""
    assert sentences(("One.", "", "Two.", "Three.")) == "One. Two. Three."
    assert listed(("1 killed", "2 forced", "100 % (clean)")) == "1 killed, 2 forced, 100 % (clean)"
    assert sentences(()) == listed([""]) == ""
    with override("zh-hans"):
        assert sentences(("一。", "二。")) == "一。二。"
        assert listed(("一", "二", "三")) == "一、二、三"


def test_every_kind_of_message_is_found() -> None:
    """What collects the messages sees plurals, contexts, lazy forms, and those of templates."""
    found = messages_of()
    assert {
        Message(
            "%(count)d other shutdown within 10 minutes; with this one: %(outcomes)s.",
            "%(count)d other shutdowns within 10 minutes; with this one: %(outcomes)s.",
        ),
        Message("draining", "", "phase"),
        Message("shutdown reports"),
        Message("Timeline, %(total)s"),
        Message("Jobs that ended by themselves"),
    } <= found
