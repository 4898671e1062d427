"""Every log line of this room (logger ``graceful.worker``): worker first, then job id."""

from __future__ import annotations

# info
NAME_TAKEN = "Worker %s: an earlier worker of this name (report %s) is dead, its report is being closed"
# warning
REPORT_CLOSED = "Worker %s: was killed; its report is closed: %s"
JOB_LEFT_BEHIND = "Worker %s: job %s was still held after the shutdown: %s"
FAILURE_UNDONE = "Worker %s: job %s had been failed by RQ's clean-up; the failure is undone"
HELD_WRONG_TYPE = "Worker %s: the key of its held job is not a hash and was removed"
SCHEDULER_NOT_REGISTERED = "Worker %s: its scheduler could not be registered, Redis is unreachable: %s"
STALE_HOLDERS = "Stale holders of jobs could not be removed: %s"
NOT_MOVED = "Where interrupted jobs ran again could not be added to their reports: %s"
# error, with traceback
NOT_CLOSED = "Worker %s: its report could not be closed"
JOB_UNREADABLE = "Worker %s: job %s cannot be read, and is left to RQ's maintenance"
