-- Keeps an answer for some time. If that is more than there may be, those go whose time is over soonest.
--
-- KEYS: answers (ZSET: question by when its answer expires), and the answer's key.
-- ARGV: question, answer, for how long in milliseconds, the most bytes, the most answers, what answers' keys begin with, and how long
--       the ZSET is kept.

local question, answer, lifetime = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most_bytes, most, prefix = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREM', KEYS[1], question)

local others = redis.call('ZRANGE', KEYS[1], 0, -1)
local bytes, sizes = #question + #answer, {}
for i, other in ipairs(others) do
  sizes[i] = #other + redis.call('STRLEN', prefix .. other)
  bytes = bytes + sizes[i]
end
local left = #others
for i, other in ipairs(others) do
  if bytes <= most_bytes and left < most then
    break
  end
  redis.call('DEL', prefix .. other)
  redis.call('ZREM', KEYS[1], other)
  bytes, left = bytes - sizes[i], left - 1
end
redis.call('SET', KEYS[2], answer, 'PX', ARGV[3])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + lifetime), question)
redis.call('PEXPIRE', KEYS[1], ARGV[7])
