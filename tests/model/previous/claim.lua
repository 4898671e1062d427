-- KEYS: held, holders. ARGV: life of the worker, job, pid of the horse, start time of the horse.
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'horse', ARGV[3], 'horse_started', ARGV[4])
return 1
