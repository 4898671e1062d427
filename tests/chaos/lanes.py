"""Rounds on several lanes side by side: a round waits most of its time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from tests.chaos.lane import Lane
from tests.chaos.plan import Round
from tests.chaos.rounds import Outcome, play


def run(rounds: Sequence[Round], lanes: int, each: Callable[[Outcome], None], *, stock: bool = False) -> None:
    """Play rounds on some lanes side by side; ``each`` is called with every outcome, one at a time."""
    waiting: queue.SimpleQueue[Round] = queue.SimpleQueue()
    for one in rounds:
        waiting.put(one)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            with Lane() as lane:
                while not errors:
                    try:
                        one = waiting.get_nowait()
                    except queue.Empty:
                        return
                    outcome = play(lane, one, stock=stock)
                    with lock:
                        each(outcome)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=serve) for _ in range(min(lanes, len(rounds)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        errors.append(KeyboardInterrupt())
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
