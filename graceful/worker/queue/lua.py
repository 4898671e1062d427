"""Functions shared by our Lua scripts. Their rule: read and check everything, decide, then write.

A script that fails after its first write is not rolled back. So each script first reads every key that it will write
to: ``redis.call`` then raises WRONGTYPE while nothing is changed yet. The writes after that cannot fail; removals from
keys of RQ's, which may be of any type, use ``redis.pcall``. Out of memory, Redis refuses only a script's first write.
"""

ASK = """
-- Reads a key that is not ours; false if the key is of another type, as if it did not exist.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply['err'] then
    return false
  end
  return reply
end
"""

WHOLE = """
-- A counter. Anything but a whole number below 10^9 was not written by us and counts as 0: no job is failed for it, and
-- the next count overwrites it.
local function whole(text)
  if text and #text <= 9 and string.match(text, '^%d+$') then
    return tonumber(text)
  end
  return 0
end
"""


APPENDED = """
-- Lines of text with one more, the last so many of them. What is too long was not written by us, and is dropped.
local function appended(text, line, most)
  local lines = {}
  if text and #text <= 65536 then
    for each in string.gmatch(text, '[^\\n]+') do
      lines[#lines + 1] = each
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, '\\n', math.max(1, #lines - most + 1))
end
"""


def counter(text: bytes | str | None) -> int:
    """What ``whole`` makes of a field's value, for Python that decides as a script will."""
    said = text.decode("ascii", "replace") if isinstance(text, bytes) else text or ""
    return int(said) if len(said) <= 9 and said.isascii() and said.isdecimal() else 0


UNSETTLED = (
    ASK
    + """
-- Whether a job has not ended yet, as far as Redis knows.
local function unsettled(queue, job, prefix)
  local status = ask('HGET', prefix .. job, 'status')
  return status == 'started' or (status == 'queued' and ask('LPOS', queue .. ':intermediate', job))
end
"""
)
"""The name of the intermediate queue is that of ``IntermediateQueue.get_intermediate_queue_key``."""
