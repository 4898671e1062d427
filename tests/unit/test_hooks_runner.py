"""The hook runner where nothing hangs: results, order, shares of time, what hooks may take and return."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from graceful.core.deadline import Deadline
from graceful.core.phases import HookOutcome, Reason
from graceful.core.records import HookResult, HookSpec, JobTally, Shutdown
from graceful.exceptions import HookSkipped
from graceful.hooks.calls import wants_shutdown
from graceful.hooks.runner import run_hooks
from graceful.signals import hook_finished


class Course:
    """Runs hooks and keeps what the runner told."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.deadline = Deadline.after(seconds)
        self.started: list[tuple[str, float]] = []
        self.ended: list[HookResult] = []
        self.limits: list[Deadline] = []

    def shutdown(self, limit: Deadline) -> Shutdown:
        self.limits.append(limit)
        return Shutdown(Reason.SIGNAL, "SIGTERM", "w", ("default",), JobTally(finished=3), limit)

    def on_start(self, spec: HookSpec, seconds: float) -> None:
        self.started.append((spec.name, seconds))

    def run(self, *specs: HookSpec, **options: Any) -> tuple[HookResult, ...]:
        return run_hooks(
            specs,
            shutdown=self.shutdown,
            deadline=self.deadline,
            on_start=options.get("on_start", self.on_start),
            on_end=options.get("on_end", self.ended.append),
            take_over=options.get("take_over"),
            of_horse=options.get("of_horse", False),
        )


def result_of(call: str | Callable[..., object], **options: Any) -> HookResult:
    """Run one hook."""
    (result,) = Course().run(HookSpec(call, "it", **options))
    return result


def ok() -> str:
    """A hook."""
    return "done"


def broken() -> None:
    """A hook that raises."""
    raise ValueError("broken")


def test_results_in_order() -> None:
    """Results come in the order of the hooks."""
    course = Course()
    results = course.run(HookSpec(ok, "a"), HookSpec(broken, "b"), HookSpec(ok, "c"))
    assert [(each.name, each.outcome, each.detail) for each in results] == [
        ("a", HookOutcome.OK, "done"),
        ("b", HookOutcome.FAILED, ""),
        ("c", HookOutcome.OK, "done"),
    ]
    assert tuple(course.ended) == results
    assert [name for name, _ in course.started] == ["a", "b", "c"]


def test_no_hooks() -> None:
    """Without hooks there are no results."""
    assert Course().run() == ()


def test_time_is_shared_out_equally() -> None:
    """Hooks without a timeout get equal shares of the time left."""
    course = Course(60.0)
    results = course.run(HookSpec(ok, "a"), HookSpec(ok, "b", timeout=5.0), HookSpec(ok, "c"))
    shares = dict(course.started)
    assert shares["a"] == pytest.approx(20.0, abs=1.0)
    assert shares["b"] == 5.0
    assert shares["c"] == pytest.approx(60.0, abs=1.0)
    assert [each.timeout for each in results] == list(shares.values())
    assert all(limit.at <= course.deadline.at for limit in course.limits)


def test_own_timeout_is_cut_to_what_is_left() -> None:
    """A hook's timeout is cut to the time left."""
    course = Course(10.0)
    course.run(HookSpec(ok, "a", timeout=500.0))
    assert course.started[0][1] == pytest.approx(10.0, abs=1.0)


@pytest.mark.parametrize("take_over", [None, lambda results: pytest.fail("taken over")])
def test_no_time_left(take_over: Callable[..., NoReturn] | None) -> None:
    """After the deadline hooks are skipped, with the reason in the report."""
    course = Course(0.0)
    results = course.run(HookSpec(ok, "a"), HookSpec(ok, "b"), take_over=take_over)
    assert [(each.outcome, each.detail) for each in results] == [(HookOutcome.SKIPPED, "no time left")] * 2
    assert course.started == []
    assert tuple(course.ended) == results


def test_hook_with_shutdown() -> None:
    """A hook with a parameter gets the Shutdown, with its own deadline."""

    def hook(shutdown: Shutdown) -> str:
        return f"{shutdown.reason} {shutdown.signal} {shutdown.jobs.finished} {50 < shutdown.time_left() <= 60}"

    assert result_of(hook).detail == "signal SIGTERM 3 True"


def test_keyword_only_shutdown() -> None:
    """A hook with a keyword-only ``shutdown`` gets it by keyword."""

    def hook(*, shutdown: Shutdown) -> str:
        return shutdown.worker

    assert result_of(hook).detail == "w"


def test_async_hook() -> None:
    """An async hook is awaited, and cancelled at its timeout."""

    async def hook(shutdown: Shutdown) -> str:
        return shutdown.worker

    async def wrong() -> None:
        raise ValueError("broken")

    assert result_of(hook).detail == "w"
    assert result_of(partial(hook)).detail == "w"
    assert result_of(wrong).error == "ValueError: broken"


@pytest.mark.parametrize("returned", [None, 7, b"bytes", ["list"], True])
def test_only_strings_are_details(returned: object) -> None:
    """Only a returned string becomes the detail."""
    assert result_of(lambda: returned).detail == ""


def test_long_detail_is_cut() -> None:
    """A long detail is cut."""
    assert len(result_of(lambda: "x" * 100_000).detail) == 500


def test_error_stands_in_the_result() -> None:
    """The result holds error and traceback, without the runner's frames."""
    result = result_of(broken)
    assert (result.outcome, result.error) == (HookOutcome.FAILED, "ValueError: broken")
    assert "in broken" in result.traceback
    assert "attempt.py" not in result.traceback


@pytest.mark.parametrize("how", ["returns", "raises", "is skipped"])
def test_what_a_hook_says_is_one_line_of_the_log(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """Control characters in a hook's detail or error are escaped in the log."""
    said = "ok\n12:00:00 Worker w: done\r\x1b[2J\u202e\u2028\ud800"

    def hook() -> str:
        if how == "returns":
            return said
        if how == "is skipped":
            raise HookSkipped(said)
        # The traceback has it as it is, and pytest-xdist can't carry a lone surrogate.
        raise ValueError(said.replace("\ud800", ""))

    with caplog.at_level(logging.INFO, "graceful.hooks"):
        result_of(hook)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "done" in message
    assert message.isprintable()


def test_error_is_logged_with_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """A failing hook is logged at ERROR with its traceback."""
    with caplog.at_level(logging.INFO, "graceful.hooks"):
        Course().run(HookSpec(broken, "bad"), HookSpec(ok, "good"), HookSpec("no_pkg.x", "gone", optional=True))
    bad, good, gone = caplog.records
    assert (bad.levelname, bad.getMessage()) == ("ERROR", "Exit hook bad failed: ValueError: broken")
    assert bad.exc_info is not None
    assert isinstance(bad.exc_info[1], ValueError)
    assert (bad.hook, bad.outcome) == ("bad", "failed")  # type: ignore[attr-defined]
    assert good.levelname == "INFO"
    assert gone.getMessage() == "Exit hook gone skipped: No module named 'no_pkg'"


def test_horse_exit_hooks_say_little(caplog: pytest.LogCaptureFixture) -> None:
    """Horse exit hooks are logged at DEBUG unless they fail."""
    with caplog.at_level(logging.DEBUG, "graceful.hooks"):
        Course().run(HookSpec(ok, "good"), HookSpec(broken, "bad"), of_horse=True)
    good, bad = caplog.records
    assert (good.levelname, good.getMessage().split(" ok ")[0]) == ("DEBUG", "Horse exit hook good")
    assert (bad.levelname, bad.getMessage()) == ("ERROR", "Horse exit hook bad failed: ValueError: broken")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), BaseException("base")])
def test_any_exception_is_the_hooks_own(error: BaseException) -> None:
    """Any exception of a hook, SystemExit included, is its result, and the next hook runs."""

    def hook() -> None:
        raise error

    results = Course().run(HookSpec(hook, "bad"), HookSpec(ok, "good"))
    assert [each.outcome for each in results] == [HookOutcome.FAILED, HookOutcome.OK]


def test_exception_that_cannot_be_shown() -> None:
    """An exception whose text raises is reported by its type."""

    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    class NastySkip(HookSkipped):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def hook() -> None:
        raise Nasty

    def skips() -> None:
        raise NastySkip

    assert result_of(hook).outcome is HookOutcome.FAILED
    assert "Nasty" in result_of(hook).error
    assert result_of(skips).detail == "NastySkip"


def test_missing_module() -> None:
    """A missing module fails a hook, and skips an optional one."""
    result = result_of("no_such_package.hook")
    assert result.outcome is HookOutcome.FAILED
    assert result.error == "ModuleNotFoundError: No module named 'no_such_package'"
    result = result_of("no_such_package.hook", optional=True)
    assert (result.outcome, result.detail) == (HookOutcome.SKIPPED, "No module named 'no_such_package'")
    assert (result.error, result.traceback) == ("", "")


def test_optional_is_about_missing_modules_only() -> None:
    """A missing name fails an optional hook too."""

    def hook() -> None:
        raise ModuleNotFoundError("of the hook itself")

    assert result_of("os.misspelt", optional=True).outcome is HookOutcome.FAILED
    assert result_of(hook, optional=True).outcome is HookOutcome.FAILED


def test_optional_is_not_about_what_the_hooks_module_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing dependency of the hook's module fails an optional hook."""
    (tmp_path / "hook_with_a_dependency.py").write_text("import no_such_package.part\n")
    monkeypatch.syspath_prepend(tmp_path)
    result = result_of("hook_with_a_dependency.flush", optional=True)
    assert result.outcome is HookOutcome.FAILED
    assert result.error == "ModuleNotFoundError: No module named 'no_such_package'"
    assert result_of("graceful.no_such_module.hook", optional=True).outcome is HookOutcome.SKIPPED
    assert result_of("no_such_package.part.hook", optional=True).outcome is HookOutcome.SKIPPED


def test_hook_that_skips_itself() -> None:
    """A hook that raises HookSkipped is reported as skipped."""

    def hook() -> None:
        raise HookSkipped("nothing here")

    result = result_of(hook)
    assert (result.outcome, result.detail, result.error) == (HookOutcome.SKIPPED, "nothing here", "")


def test_when() -> None:
    """A hook whose condition is false is skipped; one whose condition raises fails."""
    assert result_of(ok, when=lambda: True).outcome is HookOutcome.OK
    assert result_of(ok, when="os.getpid").outcome is HookOutcome.OK
    assert result_of(ok, when=lambda shutdown: shutdown.worker == "w").outcome is HookOutcome.OK
    skipped = result_of(broken, when=lambda: 0)
    assert (skipped.outcome, skipped.detail) == (HookOutcome.SKIPPED, "its condition does not hold")
    assert result_of(ok, when=broken).error == "ValueError: broken"


def test_hook_finished_is_sent() -> None:
    """``hook_finished`` is sent after each hook."""
    seen: list[HookResult] = []

    def receiver(result: HookResult, **_: object) -> None:
        seen.append(result)

    hook_finished.connect(receiver)
    try:
        results = Course().run(HookSpec(ok, "a"), HookSpec(broken, "b"))
    finally:
        hook_finished.disconnect(receiver)
    assert tuple(seen) == results


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3)])
def test_listeners_that_raise(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Listeners that raise are logged, and all hooks run."""

    def raises(*_: object, **__: object) -> None:
        raise error

    hook_finished.connect(raises)
    try:
        results = Course().run(HookSpec(ok, "a"), HookSpec(ok, "b"), on_start=raises, on_end=raises)
    finally:
        hook_finished.disconnect(raises)
    assert [each.outcome for each in results] == [HookOutcome.OK, HookOutcome.OK]
    # Of an ordinary error in a receiver Django logs the traceback, in a logger that may have no handler.
    assert len(caplog.records) == (8 if isinstance(error, Exception) else 6)


@pytest.fixture
def alarm_state() -> Iterator[Callable[[], object]]:
    """Handler, mask and timer of SIGALRM, which another may have set before."""

    def state() -> object:
        seconds, interval = signal.getitimer(signal.ITIMER_REAL)
        return (
            signal.getsignal(signal.SIGALRM),
            signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            (seconds > 0, interval),
        )

    before = signal.signal(signal.SIGALRM, lambda *_: None)
    yield state
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("timer", [(0.0, 0.0), (500.0, 7.0)])
def test_alarm_is_given_back(alarm_state: Callable[[], object], timer: tuple[float, float]) -> None:
    """Handler, timer and mask of SIGALRM are restored."""
    signal.setitimer(signal.ITIMER_REAL, *timer)
    before = alarm_state()
    during: list[object] = []

    def meddles() -> None:
        during.append(signal.getsignal(signal.SIGALRM))
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})

    Course().run(HookSpec(meddles, "a"), HookSpec(meddles, "b"))
    assert during[0] == during[1] != before
    assert alarm_state() == before


def test_outside_the_main_thread() -> None:
    """Outside the main thread hooks run without an alarm."""
    results: list[tuple[HookResult, ...]] = []
    thread = threading.Thread(target=lambda: results.append(Course().run(HookSpec(ok, "a"), HookSpec(broken, "b"))))
    thread.start()
    thread.join(10)
    assert [each.outcome for each in results[0]] == [HookOutcome.OK, HookOutcome.FAILED]


def test_standby_leaves_no_thread_behind() -> None:
    """The standby thread has ended when the run returns."""
    before = threading.enumerate()
    results = Course().run(HookSpec(ok, "a"), take_over=lambda results: pytest.fail("taken over"))
    assert results[0].outcome is HookOutcome.OK
    assert threading.enumerate() == before


def test_without_a_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no standby thread can be started, the hooks run without it."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    results = Course().run(HookSpec(ok, "a"), take_over=lambda results: pytest.fail("taken over"))
    assert results[0].outcome is HookOutcome.OK


class Closes:
    """Methods and callables of several forms."""

    def close(self, timeout: float = 5.0) -> None: ...

    def __call__(self, shutdown: Shutdown) -> None: ...

    @classmethod
    def close_all(cls, shutdown: Shutdown) -> None: ...


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: None, False),
        (lambda shutdown: None, True),
        (lambda anything: None, True),
        (lambda shutdown=None: None, True),
        (lambda timeout=5: None, False),
        (lambda *args: None, False),
        (lambda *shutdown: None, False),
        (lambda **shutdown: None, False),
        (lambda anything, timeout=5: None, True),
        (Closes().close, False),
        (Closes(), True),
        (Closes.close_all, True),
        (partial(lambda a, b: None, 1), True),
        (partial(lambda a: None, 1), False),
        (signal.alarm, True),
    ],
)
def test_who_is_given_the_shutdown(call: Callable[..., object], expected: bool) -> None:
    """A hook gets the Shutdown only if it requires an argument or has one named ``shutdown``."""
    assert wants_shutdown(call) is expected


@pytest.mark.parametrize("call", [lambda a, b: None, lambda a, *, b: None, lambda *, b: None])
def test_who_cannot_be_called(call: Callable[..., object]) -> None:
    """A callable that takes neither zero nor one argument raises TypeError."""
    with pytest.raises(TypeError, match="a hook takes no argument, or one"):
        wants_shutdown(call)
