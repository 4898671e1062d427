"""Foreign or unreadable data under our Redis keys is moved aside: it is kept, and no worker fails because of it.

Every client of the server can write to these keys. A key of the wrong type is renamed and expires after a week; an
unreadable entry of a hash is moved to a second hash of bounded size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from redis import Redis, ResponseError

from graceful.core.text import one_line
from graceful.reports import log

TYPES = {
    "graceful:workers": "hash",
    "graceful:workers:unreadable": "hash",
    "graceful:beats": "zset",
    "graceful:suspects": "zset",
    "graceful:holders": "hash",
    "graceful:resumed": "hash",
    "graceful:cron": "hash",
    "graceful:storing": "zset",
    "graceful:poison": "zset",
    "graceful:journal": "hash",
    "graceful:journal:unreadable": "hash",
}
FAMILIES = {"graceful:on:": "set", "graceful:held:": "hash"}
"""Redis types of our keys, and of keys with these prefixes."""
WRONG_TYPE_SUFFIX = ":wrong-type"
KEPT_SECONDS = 7 * 24 * 3600
"""How long a key of the wrong type is kept under its new name."""
UNREADABLE_SUFFIX = ":unreadable"
MOST_UNREADABLE = 1000
"""Unreadable entries kept for each hash; further ones are logged and dropped."""

RENAME_SCRIPT = """
-- KEYS: in turn a key, and its new name. ARGV: seconds to keep it, then the right type of each key.
local renamed = {}
for i = 1, #KEYS, 2 do
  local found = redis.call('TYPE', KEYS[i])['ok']
  local right = ARGV[1 + (i + 1) / 2]
  if found ~= 'none' and found ~= right then
    redis.call('RENAME', KEYS[i], KEYS[i + 1])
    redis.call('EXPIRE', KEYS[i + 1], ARGV[1])
    renamed[#renamed + 1] = KEYS[i]
    renamed[#renamed + 1] = found
  end
end
return renamed
"""

SET_ASIDE = """
-- KEYS: a hash, and that of its unreadable entries. ARGV: the entry, how many unreadable ones are kept.
local value = redis.call('HGET', KEYS[1], ARGV[1])
local kept = redis.call('HLEN', KEYS[2])
if not value then return 0 end
if kept < tonumber(ARGV[2]) then redis.call('HSET', KEYS[2], ARGV[1], value) end
return redis.call('HDEL', KEYS[1], ARGV[1])
"""

T = TypeVar("T")
logger = logging.getLogger("graceful.reports")


def retrying(connection: Redis, keys: Iterable[str], command: Callable[[], T]) -> T:
    """The reply to a command; if one of our keys has the wrong type, it is set aside and the command is retried.

    Args:
        connection: a client of the server.
        keys: the keys that the command uses; keys that are not ours are left alone.
        command: sends it; a refused command must have changed nothing.

    Raises:
        redis.RedisError: Redis is unreachable, or refused.
    """
    try:
        return command()
    except ResponseError as error:
        # From within a script Redis 6.2 does not put the word first.
        if "WRONGTYPE" not in str(error) or not wrong_types(connection, keys):
            raise
        return command()


class Script:
    """A Lua script that is retried after a key of the wrong type was set aside; see :func:`retrying`.

    Args:
        connection: a client of the server.
        source: its source. It must read every key that it writes to before its first write.
    """

    def __init__(self, connection: Redis, source: str) -> None:
        self._connection = connection
        self._script = connection.register_script(source)

    def __call__(self, keys: Sequence[Any], args: Iterable[Any] = ()) -> Any:
        """Its reply.

        Raises:
            redis.RedisError: Redis is unreachable, or refused.
        """
        return retrying(self._connection, keys, lambda: self._script(keys=keys, args=args))


def wrong_types(connection: Redis, keys: Iterable[str]) -> bool:
    """Rename those of our keys that have the wrong type, atomically.

    Returns:
        whether there were any.

    Raises:
        redis.RedisError: Redis is unreachable.
    """
    right = {key: kind for key in map(str, keys) if (kind := type_of(key))}
    if not right:
        return False
    names = [name for key in right for name in (key, key + WRONG_TYPE_SUFFIX)]
    reply: Any = connection.eval(RENAME_SCRIPT, len(names), *names, KEPT_SECONDS, *right.values())
    found = [part.decode() if isinstance(part, bytes) else part for part in reply]
    for key, kind in zip(found[::2], found[1::2], strict=True):
        name = one_line(key)
        logger.error(log.WRONG_TYPE, name, kind, right[key], name + WRONG_TYPE_SUFFIX)
    return bool(found)


def type_of(key: str) -> str | None:
    """The Redis type of one of our keys; None of any other."""
    return TYPES.get(key) or next((kind for prefix, kind in FAMILIES.items() if key.startswith(prefix)), None)


def entry(connection: Redis, key: str, field: str | bytes, why: str) -> bool:
    """Move one entry of a hash to its unreadable ones, atomically.

    Returns:
        False if there is no such entry: another process was faster.

    Raises:
        redis.RedisError: Redis is unreachable.
    """
    keys = (key, key + UNREADABLE_SUFFIX)
    moved = retrying(connection, keys, lambda: connection.eval(SET_ASIDE, 2, *keys, field, MOST_UNREADABLE))
    if moved:
        text = field.decode("utf-8", "backslashreplace") if isinstance(field, bytes) else field
        logger.warning(log.UNREADABLE_ENTRY, one_line(text)[:100], *keys, one_line(why))
    return bool(moved)
