-- The version after a change, and the time, in Unix milliseconds. The version is at least the clock's milliseconds, so that a server that was wiped or rolled back never tells
-- a version again that somebody has seen with other counts.
local function next_version(key)
  local now = redis.call('TIME')
  local clock = now[1] * 1000 + math.floor(now[2] / 1000)
  return string.format('%.0f', math.max(whole(read('GET', key) or '0', key) + 1, clock)), clock
end

