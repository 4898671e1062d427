"""Rounds on several lanes side by side: a round waits most of its time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from tests.chaos.plan import Round
from tests.chaos.rounds import Outcome, play
from tests.chaos.services import LANES


def run(
    rounds: Sequence[Round], lanes: int, each: Callable[[Outcome], None], *, stock: bool = False, service: str = "plain"
) -> None:
    """Play rounds on some lanes side by side; ``each`` is called with every outcome, one at a time.

    Args:
        rounds: what is played.
        lanes: how many.
        each: takes an outcome.
        stock: with django-rq's own worker instead of ours.
        service: what the lanes' workers are connected to, one of :data:`tests.chaos.services.LANES`.
    """
    waiting: queue.SimpleQueue[Round] = queue.SimpleQueue()
    for one in rounds:
        waiting.put(one)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def serve() -> None:
        try:
            with LANES[service]() as lane:
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
