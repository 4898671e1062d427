"""Every log line of this room (logger ``graceful.hooks``); a line of one hook begins with ``Exit hook <name>``."""

from __future__ import annotations

# debug
STARTS = "Exit hook %s starts, timeout %.3f s"
# info; of a horse's hooks debug
OK = "%s ok in %.1f ms%s"
SKIPPED = "%s skipped: %s"
AT_EXIT_OK = "Exit hooks at process exit: %d run, all ok"
# warning
NO_STANDBY = "Exit hooks: no standby thread could be started; a hook that cannot be interrupted ends with the watchdog"
NO_WATCHDOG = "The watchdog could not be started: %s"
LISTENER_FAILED = "Exit hooks: %r failed"
# error
FAILED = "%s failed: %s"
TIMED_OUT = "%s %s\n%s"
AT_EXIT_NOT_OK = "Exit hooks at process exit: %d run, not ok: %s"
WRONG_SETTINGS = "Exit hooks not run, invalid settings: %s"
