"""Who is compared, and how each is started: as its own documents advise for a deploy that waits ``GRACE_SECONDS``."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import venv
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

INSIDE = Path(__file__).parent / "inside"
HOME = ROOT / ".compare"
_installing = threading.Lock()
GRACE_SECONDS = 8.0
"""What the platform waits from the signal to SIGKILL."""
BUDGET_SECONDS = 6.0
"""What a peer may use of it."""

PATIENCE_SECONDS = 80.0
"""Longer than any pause that the peers' documents have, but for one."""


class NotAvailable(Exception):
    """A peer cannot be had on this machine."""


@dataclass(frozen=True)
class Peer:
    """One system.

    Args:
        name: its name here.
        title: its name in the table.
        app: module of ``inside`` that enqueues for it, and tells where its jobs stand.
        worker: the worker's command; ``{bin}`` is the directory of its programs.
        how: what its documents advise, in a sentence, and where.
        known: what is known of a stop afterwards.
        packages: what to install into an environment of its own; none for this project's.
        broker: ``"redis"`` or ``"postgres"``.
        stop: the signal that its documents give for a stop.
        prepare: a command that makes its tables.
        environment: further variables of its processes.
        patience: seconds that a new worker may take until all is done that will be.
    """

    name: str
    title: str
    app: str
    worker: tuple[str, ...]
    how: str
    known: str
    packages: tuple[str, ...] = ()
    broker: str = "redis"
    stop: signal.Signals = signal.SIGTERM
    prepare: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    patience: float = PATIENCE_SECONDS

    @property
    def environment_name(self) -> str:
        return self.app.removeprefix("app_")

    def install(self) -> Path:
        """Install it where it is not yet.

        Returns:
            the directory of its programs.

        Raises:
            NotAvailable: it cannot be had.
        """
        if self.app == "app_sidekiq":
            found = shutil.which("sidekiq")
            if found is None:
                raise NotAvailable("Debian's ruby-sidekiq is not installed")
            return Path(found).parent
        if not self.packages:
            return Path(sys.executable).parent
        home = HOME / self.environment_name
        with _installing:
            self._install_into(home)
        return home / "bin"

    def _install_into(self, home: Path) -> None:
        if not (home / "installed").exists():
            venv.create(home, with_pip=True, clear=True)
            command = [home / "bin/python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            done = subprocess.run([*command, *self.packages], capture_output=True, text=True)
            if done.returncode:
                raise NotAvailable((done.stderr.strip().splitlines() or ["pip failed"])[-1])
            (home / "installed").touch()

    def version(self, programs: Path) -> str:
        """Of the packages that make the difference."""
        if self.app == "app_sidekiq":
            return "6.4 (Debian)" if shutil.which("sidekiq") else ""
        names = [each.partition("[")[0].partition(">")[0].partition("<")[0] for each in self.packages] or ["rq"]
        code = "import importlib.metadata as m, sys; print(*(f'{n} {m.version(n)}' for n in sys.argv[1:]), sep=', ')"
        done = subprocess.run([programs / "python", "-c", code, *names[:1]], capture_output=True, text=True)
        return done.stdout.strip()

    def producer(self, programs: Path) -> list[str]:
        if self.app == "app_sidekiq":
            return ["ruby", str(INSIDE / "app_sidekiq.rb")]
        return [str(programs / "python"), str(INSIDE / "producer.py"), self.app]


NOTHING = "the log"
CELERY = ("{bin}/celery", "--app", "app_celery", "worker", "--concurrency", "1", "--loglevel", "WARNING")
PEERS = (
    Peer(
        "ours",
        "`runworker_graceful`",
        "app_rq",
        ("{bin}/python", "-m", "django", "runworker_graceful", "default"),
        "`GRACEFUL_TIMEOUT` below what the platform waits (docs/install.md).",
        "a report: phases, jobs, hooks, exit code; deploy page, metrics",
    ),
    Peer(
        "stock",
        "RQ (`rqworker`)",
        "app_rq",
        ("{bin}/python", "-m", "django", "rqworker", "default"),
        "As installed: a warm shutdown at SIGTERM, for which there is no time limit (Workers, Taking down workers).",
        NOTHING,
    ),
    Peer(
        "celery",
        "Celery",
        "app_celery",
        CELERY,
        "As installed: a warm shutdown at SIGTERM, tasks acknowledged before they run, a prefetch of four.",
        f"{NOTHING}, events",
        ("celery[redis]>=5.5", "packaging"),
    ),
    Peer(
        "celery_late",
        "Celery, `acks_late`",
        "app_celery",
        CELERY,
        "`task_acks_late`, `task_reject_on_worker_lost`, a prefetch of one (Optimizing), a soft shutdown within the "
        "grace period with `REMAP_SIGTERM=SIGQUIT` (Workers, Soft shutdown), a visibility timeout above the longest "
        "task: 60 s here, an hour by default (Redis).",
        f"{NOTHING}, events",
        ("celery[redis]>=5.5", "packaging"),
        environment=(("REMAP_SIGTERM", "SIGQUIT"),),
        # The visibility timeout, and 100 s until its transport looks (kombu's Redis transport, restore_visible).
        patience=170.0,
    ),
    Peer(
        "dramatiq",
        "Dramatiq",
        "app_dramatiq",
        (
            *("{bin}/dramatiq", "app_dramatiq", "--processes", "1", "--threads", "1"),
            *("--worker-shutdown-timeout", f"{BUDGET_SECONDS * 1000:.0f}"),
        ),
        "A shutdown timeout below the platform's, `notify_shutdown` for the actor that does not end "
        "(ShutdownNotifications), retries.",
        NOTHING,
        ("dramatiq[redis]>=1.17",),
    ),
    Peer(
        "huey",
        "huey",
        "app_huey",
        ("{bin}/huey_consumer", "app_huey.huey", "--workers", "1", "--worker-type", "process"),
        "SIGINT, for a graceful stop, is what the platform sends (Consuming tasks, Consumer shutdown).",
        NOTHING,
        ("huey>=2.5", "redis>=5"),
        stop=signal.SIGINT,
    ),
    Peer(
        "procrastinate",
        "procrastinate",
        "app_procrastinate",
        (
            *("{bin}/procrastinate", "--app", "app_procrastinate.app", "worker", "--concurrency", "1"),
            *("--shutdown-graceful-timeout", f"{BUDGET_SECONDS:.0f}"),
        ),
        "A graceful timeout below the platform's, retries, and a periodic task for stalled jobs, each minute "
        "(Retry stalled jobs).",
        f"{NOTHING}, the job's events in the database",
        ("procrastinate>=3", "psycopg[binary]>=3.2"),
        broker="postgres",
        prepare=("{bin}/procrastinate", "--app", "app_procrastinate.app", "schema", "--apply"),
    ),
    Peer(
        "tasks_db",
        "django-tasks-db",
        "app_tasks_db",
        ("{bin}/python", "-m", "django", "db_worker"),
        "As installed: at SIGTERM `db_worker` finishes its task, however long that takes.",
        f"{NOTHING}, the task's row",
        ("django-tasks-db", "django>=5.2,<6", "django-tasks>=0.9", "psycopg[binary]>=3.2"),
        broker="postgres",
        prepare=("{bin}/python", "-m", "django", "migrate", "--verbosity", "0"),
    ),
    Peer(
        "sidekiq",
        "Sidekiq 6",
        "app_sidekiq",
        ("{bin}/sidekiq", "--require", "./app_sidekiq.rb", "--concurrency", "1", "--timeout", f"{BUDGET_SECONDS:.0f}"),
        "A timeout below the platform's (Deployment). `super_fetch`, which keeps jobs over a SIGKILL, is Sidekiq Pro's "
        "and not free.",
        NOTHING,
    ),
)
