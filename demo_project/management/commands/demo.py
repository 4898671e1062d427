"""``make demo``: a worker is stopped in the middle of its work and says how that went; then four are replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Sum
from django_rq import get_queue
from rq import Worker

from demo_project.jobs import check_all_files, count_identifiers, count_tokens, files_of, packages
from demo_project.models import CheckedFile, IdentifierCount, Package
from demo_project.pool import SAMPLES_KEY, close_pool, samples

STOPPED_IN = "db/models"
"""The package during whose job the worker is stopped: the largest in the middle of the queue."""
OLD, NEW, WORKERS = "demo-2", "demo-3", 4
WORKER_LOG: Path = settings.STATE_DIR / "worker.log"


@contextmanager
def worker(*options: str, release: str = settings.GRACEFUL_RELEASE) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process, in a session of its own so that Ctrl-C reaches it through us; ended with the block."""
    command = [sys.executable, "manage.py", "runworker_graceful", settings.QUEUE]
    command += ["--worker-class", "demo_project.worker.SamplingWorker", *options]
    with WORKER_LOG.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=settings.BASE_DIR,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "RELEASE": release},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(settings.GRACEFUL_TIMEOUT + 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Command(BaseCommand):
    help = "Shows how a worker ends in the middle of its work. Needs a Redis; `make demo` brings one."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the demo.

        Raises:
            CommandError: something did not come about, or the books do not balance.
        """
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.prepare()
            self.stop_in_the_middle()
            self.do_the_rest()
            self.go_on_in_a_second_worker()
            self.deploy_a_release()
        except KeyboardInterrupt:
            raise CommandError("stopped; nothing is left running") from None
        finally:
            close_pool()

    def prepare(self) -> None:
        self.headline("1. Database and jobs")
        call_command("migrate", verbosity=0)
        Package.objects.all().delete()
        CheckedFile.objects.all().delete()
        samples().delete(SAMPLES_KEY)
        self.queue = get_queue(settings.QUEUE)
        for registry in (self.queue.finished_job_registry, self.queue.failed_job_registry):
            for job_id in registry.get_job_ids():
                registry.remove(job_id, delete_job=True)
        self.queue.empty()
        self.files = {package: files_of(package) for package in packages()}
        self.jobs = {name: self.queue.enqueue(count_identifiers, name, result_ttl=86400) for name in self.files}
        self.total_files = sum(map(len, self.files.values()))
        self.say(f"{len(self.jobs)} jobs: to count the identifiers in the {self.total_files} files of Django's source")

    def stop_in_the_middle(self) -> None:
        self.headline("2. A worker takes them, with a thread, a connection pool and a write-behind buffer of its own")
        job, files = self.jobs[STOPPED_IN], len(self.files[STOPPED_IN])
        with worker() as process:
            deadline = time.monotonic() + 60
            while (read := job.get_meta(refresh=True).get("files_read", 0)) < files // 4:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise CommandError(f"The worker ended, or did not get to {STOPPED_IN}; see {WORKER_LOG}")
                self.show_progress()
                time.sleep(0.005)
            self.end_progress()
            self.headline(f"3. A deploy: SIGTERM, while a job is at file {read} of {files} of django/{STOPPED_IN}")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(settings.GRACEFUL_TIMEOUT + 5)
            self.say(f"gone after {time.monotonic() - began:.2f} s, exit code {exit_code}")
            if exit_code:
                raise CommandError(f"Exit code 0 was expected; see {WORKER_LOG}")
        self.headline("4. Its report: manage.py shutdown_report --last")
        call_command("shutdown_report", "--last", stdout=self.stdout)
        self.headline("5. Every job accounted for")
        self.balance()

    def do_the_rest(self) -> None:
        self.headline("6. The next release's worker runs the remaining jobs, and exits (--burst)")
        with worker("--burst") as process:
            while process.poll() is None:
                self.show_progress()
                time.sleep(0.05)
        self.show_progress()
        self.end_progress()
        if process.returncode:
            raise CommandError(f"The worker ended with exit code {process.returncode}; see {WORKER_LOG}")
        self.balance()
        read = Package.objects.aggregate(files=Sum("files"), tokens=Sum("tokens"))
        common = IdentifierCount.objects.values_list("identifier").annotate(times=Sum("count")).order_by("-times")[:5]
        self.say(
            f"{read['files']} files, {read['tokens']:,} tokens; {samples().llen(SAMPLES_KEY)} samples of the thread"
        )
        self.say("most common: " + ", ".join(f"{name} {times:,}" for name, times in common))
        if read["files"] != self.total_files:
            raise CommandError(f"{self.total_files} files were to be read, but {read['files']} were.")

    def go_on_in_a_second_worker(self) -> None:
        self.headline("7. One long job over all files, with graceful.resumable, and a deploy in the middle of it")
        job = self.queue.enqueue(check_all_files, job_timeout=300)
        with worker() as process:
            self.wait_for_files(process, self.total_files // 3)
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(settings.GRACEFUL_TIMEOUT + 5)
        done = self.files_done()
        status = job.get_status().value
        self.say(f"stopped at file {done} of {self.total_files}; exit code {exit_code}, the job is {status}")
        if exit_code != os.EX_TEMPFAIL or not 0 < done < self.total_files:
            raise CommandError(f"The job was to be interrupted in the middle; see {WORKER_LOG}")
        with worker("--burst") as process:
            self.wait_for_files(process, self.total_files)
            process.wait(60)
        self.say(f"a second worker went on at file {done + 1}: the job is {job.get_status().value}")
        again = CheckedFile.objects.filter(times__gt=1).count()
        self.say(f"{self.files_done()} files checked, {again} of them twice")
        if self.files_done() != self.total_files or again > 1:
            raise CommandError("Every file was to be checked, and at most the one in progress twice.")

    def deploy_a_release(self) -> None:
        """Four workers are replaced one by one; the last ones end of themselves, so that this stays the last deploy."""
        self.headline(f"8. A release with four workers replaces another: manage.py wait_for_deploy --release {NEW}")
        CheckedFile.objects.all().delete()
        long = self.queue.enqueue(check_all_files, job_timeout=300)
        for _number in range(WORKERS - 1):
            self.queue.enqueue(count_tokens, job_timeout=300)
        with ExitStack() as stack:
            old = [stack.enter_context(worker(release=OLD)) for _number in range(WORKERS)]
            deadline = time.monotonic() + 60
            while self.queue.started_job_registry.get_job_count(cleanup=False) < WORKERS:
                if time.monotonic() > deadline:
                    raise CommandError(f"The workers do not start their jobs; see {WORKER_LOG}")
                time.sleep(0.05)
            # Its worker goes first, while the job is far from its end, however fast the machine is.
            holders = {each.pid: each.get_current_job_id() for each in Worker.all(queue=self.queue)}
            old.sort(key=lambda process: holders.get(process.pid) != long.id)
            new: list[subprocess.Popen[bytes]] = []
            for process in old:
                # What a rolling update does: a new worker, and when that is on its way, an old one less.
                new.append(stack.enter_context(worker("--max-idle-time", "6", release=NEW)))
                time.sleep(0.8)
                process.send_signal(signal.SIGTERM)
            try:
                call_command("wait_for_deploy", release=NEW, workers=WORKERS, timeout=60, stdout=self.stdout)
            except SystemExit as ended:
                if ended.code != os.EX_TEMPFAIL:
                    raise CommandError(f"One job was to be interrupted, and the gate said {ended.code}") from ended
            deadline = time.monotonic() + 60
            while not long.is_finished and time.monotonic() < deadline:
                time.sleep(0.1)
                long.get_status()
            for process in new:
                process.wait(30)
            self.say(f"the long job is {long.get_status().value}, after {self.files_done()} files")
        self.headline('All of it in the admin, with the page "Last deploy": make demo-admin')
        self.say(f"the log of the workers: {WORKER_LOG.relative_to(settings.BASE_DIR)}")

    def wait_for_files(self, process: subprocess.Popen[bytes], files: int) -> None:
        deadline = time.monotonic() + 120
        while self.files_done() < files and process.poll() is None:
            if time.monotonic() > deadline:
                raise CommandError(f"The worker does not get on; see {WORKER_LOG}")
            time.sleep(0.02)

    @staticmethod
    def files_done() -> int:
        return CheckedFile.objects.count()

    def balance(self) -> None:
        """Show where the jobs are.

        Raises:
            CommandError: one of them is nowhere.
        """
        done, failed = self.queue.finished_job_registry.count, self.queue.failed_job_registry.count
        queued = self.queue.count
        lost = len(self.jobs) - done - failed - queued
        self.say(f"{done} done + {queued} still queued + {failed} failed + {lost} lost = {len(self.jobs)} jobs")
        if lost:
            raise CommandError("The jobs do not add up.")

    def headline(self, text: str) -> None:
        self.stdout.write("\n" + self.style.MIGRATE_HEADING(text))
        self.shown = -1

    def say(self, text: str) -> None:
        self.stdout.write(f"  {text}")
        self.stdout.flush()

    def show_progress(self) -> None:
        """One line that is written over on a terminal, and now and then a new one elsewhere."""
        done, total, width = self.queue.finished_job_registry.count, len(self.jobs), 40
        line = f"  [{'#' * (width * done // total):{width}}] {done} of {total} jobs"
        if self.stdout.isatty():
            self.stdout.write(f"\r{line}", ending="")
        elif self.shown < 0 or done - self.shown >= total // 5 or (done == total != self.shown):
            self.stdout.write(line)
            self.shown = done
        self.stdout.flush()

    def end_progress(self) -> None:
        if self.stdout.isatty():
            self.stdout.write("")
