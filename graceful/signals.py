"""Django signals of a worker's life; ``docs/signals.md`` says when and where each is sent.

===================  ====================================  ====================================================
signal               sent                                  arguments
===================  ====================================  ====================================================
worker_started       before the first job                  ``worker`` (name), ``queues``, ``release``
quiet_changed        it is quiet, or takes jobs again      ``worker``, ``quiet``
shutdown_requested   when the loop sees the request        ``worker``, ``reason``, ``signal_name``
job_interrupted      when an interrupted job is settled    ``worker``, ``job`` (:class:`InFlightJob`)
worker_drained       before the first exit hook            ``worker``, ``jobs`` (:class:`JobTally`), ``seconds``
hook_finished        after each exit hook                  ``result`` (:class:`HookResult`)
shutdown_finished    when the report is stored             ``report`` (:class:`ShutdownReport`)
===================  ====================================  ====================================================
"""

from __future__ import annotations

import logging
from typing import Any

from django.dispatch import Signal

log = logging.getLogger("graceful.signals")
FAILED = "A receiver of a signal failed: %r: %s: %s"
ENDED = "A receiver of a signal raised %s; the receivers after it were not called"

worker_started = Signal()
quiet_changed = Signal()
shutdown_requested = Signal()
job_interrupted = Signal()
worker_drained = Signal()
hook_finished = Signal()
shutdown_finished = Signal()


def send(signal: Signal, sender: object, **arguments: Any) -> None:
    """Call a signal's receivers; whatever they raise, ``SystemExit`` included, is logged and ends there.

    Args:
        signal: one of the above.
        sender: the class that sends it.
        arguments: for the receivers.
    """
    if not signal.receivers:
        return
    try:
        for receiver, response in signal.send_robust(sender, **arguments):
            if isinstance(response, Exception):  # Its traceback is in Django's own log line.
                log.warning(FAILED, receiver, type(response).__name__, response)
    except BaseException as error:
        log.warning(ENDED, type(error).__name__, exc_info=True)
