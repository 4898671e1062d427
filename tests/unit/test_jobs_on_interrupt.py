"""What a job says of its own interruption."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from graceful.jobs import on_interrupt, policy_of


@on_interrupt("fail")
def charge(customer: int) -> int:
    return customer


class Mailer:
    @on_interrupt("requeue")
    def send(self) -> None: ...


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    """RQ would store another name, or the job would get other arguments."""
    assert charge(3) == 3
    assert charge.__qualname__ == "charge"


@pytest.mark.parametrize("function", [charge, logged(charge), functools.partial(charge, 1)])
def test_the_policy_is_found_through_wrappers(function: Callable[..., Any]) -> None:
    """A second decorator would undo the first."""
    assert policy_of(function, {}) == "fail"


def test_the_policy_of_a_method_is_found_on_the_bound_one() -> None:
    """RQ runs methods bound to their instance."""
    assert policy_of(Mailer().send, None) == "requeue"


def test_meta_goes_before_the_decorator() -> None:
    """One job could not be told apart from the others of its function."""
    assert policy_of(charge, {"graceful_on_interrupt": "requeue"}) == "requeue"
    assert policy_of(None, {"graceful_on_interrupt": "fail"}) == "fail"


@pytest.mark.parametrize("said", ["no", "", None, 3, ["fail"], {}])
def test_a_wrong_word_in_meta_counts_as_none(said: object) -> None:
    """A worker would crash in the middle of its shutdown."""
    assert policy_of(charge, {"graceful_on_interrupt": said}) == "fail"
    assert policy_of(print, {"graceful_on_interrupt": said}) is None


def test_who_says_nothing_has_no_policy() -> None:
    """The setting would never be asked."""
    assert policy_of(print, {}) is None
    assert policy_of(None, None) is None


@pytest.mark.parametrize("policy", ["retry", "", None, ("fail",), charge])
def test_a_wrong_policy_is_an_error_at_decoration(policy: Any) -> None:
    """A misspelt word would be found out at the next deploy's shutdown, in production."""
    with pytest.raises(ValueError, match='"requeue" or "fail", got: '):
        on_interrupt(policy)


def test_a_decorator_without_its_word_is_told_what_to_write() -> None:
    """``@on_interrupt`` bare would replace the job's function by the decorator."""
    with pytest.raises(ValueError, match=r"write @on_interrupt\(\.\.\.\)"):
        on_interrupt(charge)  # type: ignore[type-var]
