"""What a job says of its own interruption."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLike:
    """A Task as ``django.tasks`` of Django 6 and the package django-tasks have it."""

    func: Callable[..., Any]


@dataclass(frozen=True)
class TaskWithDict(TaskLike):
    """One whose attributes are frozen, but not slots."""


def charge_plain() -> Callable[[int], int]:
    def plain(customer: int) -> int:
        return customer

    plain.__qualname__ = "plain"  # Django takes functions of a module only.
    return plain


TASKS: list[Any] = [TaskLike, TaskWithDict]
if find_spec("django.tasks"):
    from django.tasks import task

    TASKS.append(lambda func: task(func))


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    """The decorator returns the function itself."""
    assert charge(3) == 3
    assert charge.__qualname__ == "charge"


@pytest.mark.parametrize("function", [charge, logged(charge), functools.partial(charge, 1)])
def test_the_policy_is_found_through_wrappers(function: Callable[..., Any]) -> None:
    """The policy is found below other decorators."""
    assert policy_of(function, {}) == "fail"


def test_the_policy_of_a_method_is_found_on_the_bound_one() -> None:
    """The policy of a method is found on the bound method."""
    assert policy_of(Mailer().send, None) == "requeue"


@pytest.mark.parametrize("kind", TASKS)
def test_the_policy_of_a_task_is_its_functions(kind: Any) -> None:
    """The policy of a Django Task is found with the decorator above or below ``@task``."""
    below = kind(func=on_interrupt("fail")(charge_plain()))
    assert policy_of(below, {}) == "fail"
    above = kind(func=charge_plain())
    assert on_interrupt("fail")(above) is above
    assert policy_of(above, {}) == "fail"
    assert policy_of(kind(func=charge_plain()), {}) is None


def test_the_outermost_word_counts() -> None:
    """Of nested policies the outermost counts."""
    assert policy_of(on_interrupt("requeue")(logged(charge)), {}) == "requeue"
    assert policy_of(charge, {}) == "fail"


def test_the_policy_is_found_below_a_wrapper_that_copies_no_attributes() -> None:
    """The policy is found through ``functools.wraps(..., updated=())``."""

    @functools.wraps(charge, updated=())
    def call(customer: int) -> int:
        return charge(customer)

    assert policy_of(call, {}) == "fail"


def test_the_decorator_above_a_static_or_class_method() -> None:
    """A policy above ``@staticmethod`` or ``@classmethod`` applies to the function that the class returns."""

    class Bank:
        @on_interrupt("fail")
        @staticmethod
        def pay() -> None: ...

        @on_interrupt("fail")
        @classmethod
        def close(cls) -> None: ...

    assert policy_of(Bank.pay, {}) == policy_of(Bank.close, {}) == policy_of(Bank().close, {}) == "fail"


def test_one_job_s_meta_goes_before_the_policy_of_its_task() -> None:
    """A job's meta overrides the policy of its Django Task."""
    task_like = TaskLike(func=charge)
    assert policy_of(task_like, {"graceful_on_interrupt": "requeue"}) == "requeue"


def test_what_cannot_be_decorated_is_an_error_at_decoration() -> None:
    """An object that cannot carry a policy raises TypeError at decoration."""
    with pytest.raises(TypeError, match="decorates a function or a task, got: 7"):
        on_interrupt("fail")(7)


class Hostile:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class Endless:
    def __call__(self) -> None: ...

    @property
    def func(self) -> Endless:
        return self


@pytest.mark.parametrize("function", [Hostile(), Endless(), 3, "charge"], ids=type)
def test_a_function_that_is_anything_has_no_policy(function: object) -> None:
    """``policy_of`` never raises or loops, whatever the function is."""
    assert policy_of(function, {}) is None


def test_meta_goes_before_the_decorator() -> None:
    """A job's meta overrides the decorator."""
    assert policy_of(charge, {"graceful_on_interrupt": "requeue"}) == "requeue"
    assert policy_of(None, {"graceful_on_interrupt": "fail"}) == "fail"


@pytest.mark.parametrize("said", ["no", "", None, 3, ["fail"], {}])
def test_a_wrong_word_in_meta_counts_as_none(said: object) -> None:
    """An invalid value in meta counts as no policy and is logged."""
    assert policy_of(charge, {"graceful_on_interrupt": said}) == "fail"
    assert policy_of(print, {"graceful_on_interrupt": said}) is None


def test_who_says_nothing_has_no_policy() -> None:
    """A job without a policy has None."""
    assert policy_of(print, {}) is None
    assert policy_of(None, None) is None


@pytest.mark.parametrize("policy", ["retry", "", None, ("fail",), charge])
def test_a_wrong_policy_is_an_error_at_decoration(policy: Any) -> None:
    """An invalid policy raises ValueError at decoration."""
    with pytest.raises(ValueError, match='"requeue" or "fail", got: '):
        on_interrupt(policy)


def test_a_decorator_without_its_word_is_told_what_to_write() -> None:
    """``@on_interrupt`` without a policy raises ValueError with a hint."""
    with pytest.raises(ValueError, match=r"write @on_interrupt\(\.\.\.\)"):
        on_interrupt(charge)  # type: ignore[arg-type]
