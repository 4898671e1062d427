"""What stands under our keys in Redis and is not ours: it is moved away, so that it is kept and stops nobody.

Everybody who may write to the server may write to these keys. A key of another Redis type than ours is renamed, with
an end to its life; an entry of a hash that cannot be read goes into a second hash, which has a bound.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from redis import Redis, ResponseError

from graceful.core.text import one_line

TYPES = {
    "graceful:workers": "hash",
    "graceful:workers:unreadable": "hash",
    "graceful:beats": "zset",
    "graceful:suspects": "zset",
    "graceful:holders": "hash",
    "graceful:journal": "hash",
    "graceful:journal:unreadable": "hash",
}
FAMILIES = {"graceful:on:": "set", "graceful:held:": "hash"}
"""Redis types of our keys, and of those that begin so."""
WRONG_TYPE_SUFFIX = ":wrong-type"
KEPT_SECONDS = 7 * 24 * 3600
"""A key of a wrong type is kept for so long under its new name."""
UNREADABLE_SUFFIX = ":unreadable"
MOST_UNREADABLE = 1000
"""Unreadable entries that are kept, of each hash; what comes after them is logged and dropped."""

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
    """What a command answers; where one of our keys is of a wrong type that is set aside, and it is sent once more.

    Args:
        connection: a client of the server.
        keys: the keys that the command uses; those that are not ours are left alone.
        command: sends it; it must have changed nothing where it was refused.

    Raises:
        redis.RedisError: Redis did not answer, or refused.
    """
    try:
        return command()
    except ResponseError as error:
        # Within a script Redis 6.2 puts the word behind others.
        if "WRONGTYPE" not in str(error) or not wrong_types(connection, keys):
            raise
        return command()


class Script:
    """A Lua script that is sent once more after a key of a wrong type was set aside; see :func:`retrying`.

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
            redis.RedisError: Redis did not answer, or refused.
        """
        return retrying(self._connection, keys, lambda: self._script(keys=keys, args=args))


def wrong_types(connection: Redis, keys: Iterable[str]) -> bool:
    """Rename those of our keys that are of a wrong type, in one step.

    Returns:
        whether there were any.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    right = {key: kind for key in map(str, keys) if (kind := type_of(key))}
    if not right:
        return False
    names = [name for key in right for name in (key, key + WRONG_TYPE_SUFFIX)]
    reply: Any = connection.eval(RENAME_SCRIPT, len(names), *names, KEPT_SECONDS, *right.values())
    found = [part.decode() if isinstance(part, bytes) else part for part in reply]
    for key, kind in zip(found[::2], found[1::2], strict=True):
        name = one_line(key)
        logger.error("Key %s was a %s, not a %s: renamed to %s%s", name, kind, right[key], name, WRONG_TYPE_SUFFIX)
    return bool(found)


def type_of(key: str) -> str | None:
    """The Redis type of one of our keys; None of any other."""
    return TYPES.get(key) or next((kind for prefix, kind in FAMILIES.items() if key.startswith(prefix)), None)


def entry(connection: Redis, key: str, field: str | bytes, why: str) -> bool:
    """Move one entry of a hash to its unreadable ones, in one step, within the server.

    Returns:
        False if there is no such entry: somebody else was quicker.

    Raises:
        redis.RedisError: Redis did not answer.
    """
    keys = (key, key + UNREADABLE_SUFFIX)
    moved = retrying(connection, keys, lambda: connection.eval(SET_ASIDE, 2, *keys, field, MOST_UNREADABLE))
    if moved:
        text = field.decode("utf-8", "backslashreplace") if isinstance(field, bytes) else field
        logger.warning("Entry %s of %s cannot be read, it is now in %s: %s", one_line(text)[:100], *keys, one_line(why))
    return bool(moved)
