"""RQ's ``work()``, with our loop in the place of RQ's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rq.defaults import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT
from rq.worker import BaseWorker, DequeueStrategy

from graceful.worker.compat import rq_private

if TYPE_CHECKING:
    from graceful.worker.session import Session


class GracefulLoop(BaseWorker):
    """Comes last among the bases of a graceful class, so that a user's own ``work()`` is called before this one."""

    _session: Session | None = None

    def work(
        self,
        burst: bool = False,
        logging_level: str | None = None,
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        dequeue_strategy: DequeueStrategy = DequeueStrategy.DEFAULT,
    ) -> bool:
        """As RQ's ``BaseWorker.work``, read in 2.6.1 to 3.0.0; see docs/rq-work-loop.md.

        Returns:
            whether a job was executed.
        """
        session = self._session
        assert session is not None
        self.bootstrap(logging_level, date_format, log_format)
        rq_private.set_dequeue_strategy(self, dequeue_strategy)
        if with_scheduler:
            self._start_scheduler(burst, logging_level, date_format, log_format)
        self._install_signal_handlers()
        try:
            session.loop.run(burst, max_jobs, max_idle_time)
        finally:
            self.teardown()
        return bool(session.loop.executed)
