"""Every log line of this room (logger ``graceful.worker``): worker first, then job id."""

from __future__ import annotations

# info
BURST_ENDS = "Worker %s: %s in burst mode, exiting"
TAKES_NOTHING = "Worker %s: %s"
# warning
RECORD_LOST = "Worker %s: job %s is done, and Redis lost the record of it; requeued"
CALLBACK_KILLED = "Worker %s: job %s: its failure callback or an exception handler was killed"
POLICY_UNREADABLE = "Job %s: what it says of its interruption could not be read in time"
# error
UNREACHABLE = "Worker %s: Redis is unreachable or refuses commands: %s, retrying in %.0f s"
# error, with traceback
CALLBACK_FAILED = "Worker %s: job %s: its failure callback failed"
HANDLER_FAILED = "Failing a job: the failure callback or an exception handler failed"
