-- KEYS: workers, beats, machine. ARGV: life, registration, seconds until overdue, seconds to keep the machine,
-- seconds since its own last beat after which it does not judge others.
local now = tonumber(redis.call('TIME')[1])
local before = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or 0)
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('EXPIRE', KEYS[3], ARGV[4])
local overdue = {}
if now - before <= tonumber(ARGV[5]) then
  overdue = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[3]), 'LIMIT', 0, 20)
end
return {overdue, redis.call('SMEMBERS', KEYS[3])}
