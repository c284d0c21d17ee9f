-- Stores a response for a limited time. If the cache would become too large, first deletes the responses that expire
-- soonest.
--
-- The deleted responses are named by the ZSET, so their keys are not in KEYS. Redis requires all keys of a script in KEYS
-- only on a cluster, which is not supported. All these keys have the same hash tag, so even there they are in one slot.
--
-- KEYS: responses (ZSET: query by the expiry of its response), and the key of the response.
-- ARGV: the query, the response, the lifetime of the response in milliseconds, the maximum bytes of all responses, the
--       maximum number of responses, the prefix of the keys of responses, and the lifetime of the ZSET in milliseconds.

local query, response, lifetime = ARGV[1], ARGV[2], tonumber(ARGV[3])
local max_bytes, max_responses, prefix = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREM', KEYS[1], query)

local others = redis.call('ZRANGE', KEYS[1], 0, -1)
local bytes, sizes = #query + #response, {}
for i, other in ipairs(others) do
  sizes[i] = #other + redis.call('STRLEN', prefix .. other)
  bytes = bytes + sizes[i]
end
local remaining = #others
for i, other in ipairs(others) do
  if bytes <= max_bytes and remaining < max_responses then
    break
  end
  redis.call('UNLINK', prefix .. other)
  redis.call('ZREM', KEYS[1], other)
  bytes, remaining = bytes - sizes[i], remaining - 1
end
redis.call('SET', KEYS[2], response, 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + lifetime), query)
redis.call('PEXPIRE', KEYS[1], ARGV[7])
