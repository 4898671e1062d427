"""What differs between the cron jobs of RQ 2.6 and 3, and what RQ notes of them. Read in RQ 2.6.1 and 3.0.0."""

from __future__ import annotations

from datetime import datetime
from importlib import import_module
from typing import Any

from redis.client import Pipeline
from rq import cron_scheduler_registry
from rq.cron import CronJob, CronScheduler
from rq.job import Job


def set_enqueued(job: CronJob, at: datetime) -> None:
    """Tell a cron job when it was enqueued last: ``set_run_time`` in RQ 2.6, ``set_enqueue_time`` in 3."""
    any_job: Any = job
    (any_job.set_enqueue_time if hasattr(job, "set_enqueue_time") else any_job.set_run_time)(at)


def due(job: CronJob) -> datetime | None:
    """When a cron job is due next; None for one that was never enqueued."""
    found: datetime | None = getattr(job, "next_enqueue_time", None) or getattr(job, "next_run_time", None)
    return found


def note(job: CronJob, enqueued: Job, pipeline: Pipeline) -> None:
    """The history that RQ 3 keeps of what a cron job has enqueued (``CronJob.enqueue``); RQ 2.6 keeps none."""
    key = getattr(job, "job_history_key", None)
    if key is None or enqueued.enqueued_at is None:
        return
    defaults: Any = import_module("rq.defaults")
    at = enqueued.enqueued_at.timestamp()
    pipeline.zadd(key, {enqueued.id: at})
    pipeline.zremrangebyrank(key, 0, -(defaults.DEFAULT_CRON_JOB_HISTORY_LIMIT + 1))
    pipeline.expire(key, defaults.DEFAULT_CRON_JOB_HISTORY_TTL)
    import_module("rq.cron_job_registry").add(job.name, pipeline, enqueue_timestamp=at)


def deregister(scheduler: CronScheduler) -> None:
    """As ``CronScheduler.register_death``, which raises where the entry is gone already."""
    scheduler.connection.zrem(cron_scheduler_registry.get_registry_key(), scheduler.name)
