"""What the soak run takes for growth, and how it draws it."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import pytest

from tests.soak.chart import sparkline, svg
from tests.soak.growth import Tolerance, grows, growth

TOLERANCE = Tolerance(share=0.05, amount=2.0)


def test_a_leak_grows() -> None:
    """A steady rise is growth, however much the samples scatter."""
    rng = random.Random(1)
    assert grows([50 + 0.3 * index + rng.uniform(-2, 2) for index in range(60)], TOLERANCE)


def test_scatter_does_not_grow() -> None:
    """Samples that go up and down around a level are flat."""
    rng = random.Random(1)
    assert not grows([50 + rng.uniform(-2, 2) for _ in range(60)], TOLERANCE)


def test_what_fills_up_at_first_does_not_grow() -> None:
    """What rises in the first half only was a cache, or had not begun to expire."""
    assert not grows([*range(30), *[30.0] * 30], TOLERANCE)


def test_what_shrinks_does_not_grow() -> None:
    """Less than before is no leak."""
    assert growth([float(100 - index) for index in range(40)]) < 0
    assert not grows([float(100 - index) for index in range(40)], TOLERANCE)


def test_the_larger_tolerance_holds() -> None:
    """A share of much, an amount of little."""
    assert (TOLERANCE.of(1000.0), TOLERANCE.of(1.0)) == (50.0, 2.0)


def test_too_few_samples_say_nothing() -> None:
    """A run that was too short is an error, not a success."""
    with pytest.raises(ValueError, match="7 samples in the second half are too few"):
        growth([1.0] * 14)


def test_a_sparkline_goes_from_zero_to_its_maximum() -> None:
    """Each stretch shows its largest value; a series of zeros has a line, too."""
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7, 8]) == "▁▂▃▄▅▆▇██"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert len(sparkline([float(index) for index in range(500)])) == 60


def test_the_picture_is_well_formed() -> None:
    """Names are escaped; what grew is in another colour."""
    root = ElementTree.fromstring(svg({"keys <a>&": [1.0, 2.0], "flat": [1.0, 1.0]}, ["keys <a>&"]))
    texts = [element for element in root if element.tag.endswith("text")]
    assert [text.text for text in texts] == ["keys <a>&: 2", "flat: 1"]
    assert texts[0].get("fill") != texts[1].get("fill")


def test_one_sample_in_the_middle_of_a_restart() -> None:
    """It does not make a flat series grow; a steady rise, with such a sample too, does."""
    flat, rising = [18.0] * 40, [18.0 + number / 4 for number in range(40)]
    flat[21] = rising[21] = 2.0
    assert not grows(flat, Tolerance(0.0, 1.0))
    assert grows(rising, Tolerance(0.0, 1.0))
