"""What our Lua scripts share. Their rule: read and check everything, decide, then write.

A script that fails after its first write leaves the rest undone, and Redis takes nothing back. So each reads every key
that it will write to first: ``redis.call`` then raises WRONGTYPE while nothing is changed yet. What is written after
that cannot fail; a removal from a key of RQ's that may be of any type goes by ``redis.pcall``, since what it would
remove cannot be in there. Memory is no matter: Redis refuses for want of it only a script's first write.
"""

ASK = """
-- The reply to a read of a key that is not ours; false where the key is of another type, as if it were not there.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply['err'] then
    return false
  end
  return reply
end
"""

WHOLE = """
-- A counter. What is no whole number below a thousand million was not counted by us, and is 0: a job is not failed for
-- it, and the next count is written over it.
local function whole(text)
  if text and #text <= 9 and string.match(text, '^%d+$') then
    return tonumber(text)
  end
  return 0
end
"""


def counter(text: bytes | str | None) -> int:
    """What ``whole`` makes of a field's value, for Python that decides as a script will."""
    said = text.decode("ascii", "replace") if isinstance(text, bytes) else text or ""
    return int(said) if len(said) <= 9 and said.isascii() and said.isdecimal() else 0


UNSETTLED = (
    ASK
    + """
-- Whether a job has come to no end yet, as far as Redis knows.
local function unsettled(queue, job, prefix)
  local status = ask('HGET', prefix .. job, 'status')
  return status == 'started' or (status == 'queued' and ask('LPOS', queue .. ':intermediate', job))
end
"""
)
"""The name of the intermediate queue is that of ``IntermediateQueue.get_intermediate_queue_key``."""
