-- Whether a job has come to no end yet, as far as Redis knows.
local function unsettled(queue, job, prefix)
  local status = redis.call('HGET', prefix .. job, 'status')
  return status == 'started' or (status == 'queued' and redis.call('LPOS', queue .. ':intermediate', job))
end

-- KEYS: workers, beats, machine, held, holders, journal.
-- ARGV: life, '1' to remove the journal's entry too, prefix of the keys of jobs, '1' if the job has been seen to.
local held = redis.call('HMGET', KEYS[4], 'queue', 'job')
if held[2] and redis.call('HGET', KEYS[5], held[2]) == ARGV[1] then
  if held[1] and ARGV[4] == '' then
    if unsettled(held[1], held[2], ARGV[3]) then
      -- Redis was restarted without its last moments: a successor gives the job back.
      return 0
    end
    redis.call('LREM', held[1] .. ':intermediate', 0, held[2])
  end
  redis.call('HDEL', KEYS[5], held[2])
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('SREM', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[4])
if ARGV[2] == '1' then
  redis.call('HDEL', KEYS[6], ARGV[1])
end
return 1
