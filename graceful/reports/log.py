"""Every log line of this room (logger ``graceful.reports``); the line of each shutdown is in :mod:`.line`."""

from __future__ import annotations

# warning
NOT_ARCHIVED = "Shutdown reports in %s could not be archived: %s"
NOT_STORED = "Shutdown reports could not be stored: %s"
TABLES_MISSING = (
    "The database tables of graceful are missing or out of date, run: manage.py migrate. "
    "Until then shutdown reports stay in Redis or in the spool (%s)"
)
DATABASE_SLOW = "Shutdown reports: the database took longer than %.2f s to store them"
REFUSED = "Shutdown report %s cannot be stored, it was set aside: %s"
OLD_NOT_REMOVED = "Old shutdown reports could not be removed: %s"
NOT_ROLLED_UP = "Shutdown reports could not be added up for the trends: %s"
UNREADABLE_FILE = "Unreadable file %.100r in the spool was renamed: %s"
UNREADABLE_ENTRY = "Unreadable entry %s of %s was moved to %s: %s"
# error
WRONG_TYPE = "Key %s was a %s, not a %s: renamed to %s"
# info
PAGE_NOT_ARCHIVED = "Shutdown reports that wait for the archive were not reached: %s"
RESUMED_NOT_MOVED = "Where interrupted jobs went could not be stored: %s"
RELEASE_NOT_NOTED = "A release could not be noted: %s"
