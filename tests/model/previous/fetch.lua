-- Whether a job has come to no end yet, as far as Redis knows.
local function unsettled(queue, job, prefix)
  local status = redis.call('HGET', prefix .. job, 'status')
  return status == 'started' or (status == 'queued' and redis.call('LPOS', queue .. ':intermediate', job))
end

-- KEYS: held, holders, then queue and intermediate queue in turn.
-- ARGV: number of this fetch, life of the worker, seconds to keep what it holds, prefix of the keys of jobs.
local held = redis.call('HMGET', KEYS[1], 'fetch', 'queue', 'job')
if held[1] == ARGV[1] then
  return {held[2], held[3], 'taken'}
end
if held[2] and held[3] and redis.call('HGET', KEYS[2], held[3]) == ARGV[2] then
  -- The worker is done with it. But Redis may have been restarted without its last moments.
  if unsettled(held[2], held[3], ARGV[4]) then
    return {held[2], held[3], 'forgotten'}
  end
  redis.call('LREM', held[2] .. ':intermediate', 0, held[3])
end
for i = 3, #KEYS, 2 do
  local job = redis.call('LMOVE', KEYS[i], KEYS[i + 1], 'LEFT', 'RIGHT')
  if job then
    if held[3] and redis.call('HGET', KEYS[2], held[3]) == ARGV[2] then
      redis.call('HDEL', KEYS[2], held[3])
    end
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'fetch', ARGV[1], 'queue', KEYS[i], 'job', job)
    redis.call('EXPIRE', KEYS[1], ARGV[3])
    redis.call('HSET', KEYS[2], job, ARGV[2])
    return {KEYS[i], job, 'taken'}
  end
end
return false
