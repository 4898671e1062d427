-- KEYS: queue, intermediate queue, first seen, job, started registry, executions of the job, execution, of the worker
-- and holders. ARGV: job id, composite id of the execution (or ''), execution id, field to count in (or ''), most that
-- is allowed, life of the worker that holds it.
local status = redis.call('HGET', KEYS[4], 'status')
local count = tonumber(redis.call('HGET', KEYS[4], 'graceful_interruptions') or 0)
if redis.call('HGET', KEYS[9], ARGV[1]) ~= ARGV[6] then
  -- Also what a second try finds, if the first one worked and its reply was lost.
  if status == 'queued' and redis.call('LPOS', KEYS[1], ARGV[1]) then
    return {'in its queue', count}
  end
  return {'not held', count}
end
if ARGV[2] ~= '' then
  redis.call('ZREM', KEYS[5], ARGV[2])
  redis.call('ZREM', KEYS[6], ARGV[3])
  redis.call('DEL', KEYS[7])
  redis.call('SREM', KEYS[8], ARGV[2])
end
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('DEL', KEYS[3])
if not status then
  redis.call('HDEL', KEYS[9], ARGV[1])
  return {'gone', 0}
end
if status ~= 'started' and status ~= 'queued' then
  redis.call('HDEL', KEYS[9], ARGV[1])
  return {status, count}
end
if status == 'queued' and redis.call('LPOS', KEYS[1], ARGV[1]) then
  redis.call('HDEL', KEYS[9], ARGV[1])
  return {'in its queue', count}
end
if ARGV[4] ~= '' then
  -- Whoever was to fail it may have died over it: the next one does not count it again.
  if redis.call('HGET', KEYS[4], 'graceful_interrupted_in') ~= ARGV[6] then
    count = redis.call('HINCRBY', KEYS[4], ARGV[4], 1)
  end
  local before_progress = tonumber(redis.call('HGET', KEYS[4], 'graceful_interruptions_before_progress') or 0)
  if count - before_progress > tonumber(ARGV[5]) then
    redis.call('HSET', KEYS[4], 'graceful_interrupted_in', ARGV[6])
    return {'too many', count}
  end
end
redis.call('HDEL', KEYS[9], ARGV[1])
redis.call('HSET', KEYS[4], 'status', 'queued')
redis.call('HDEL', KEYS[4], 'worker_name')
redis.call('PERSIST', KEYS[4])
redis.call('LPUSH', KEYS[1], ARGV[1])
return {'given back', count}
