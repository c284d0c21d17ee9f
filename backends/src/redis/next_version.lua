-- The version after a change, and the time, in Unix milliseconds. The version is at least the clock's microseconds: no change
-- takes less than one, so it never runs ahead of the clock, and a server that was wiped or rolled back never tells a version
-- again that somebody has seen with other counts.
local function next_version(key)
  local now = redis.call('TIME')
  local micros = now[1] * 1000000 + now[2]
  local version = math.max(whole(read('GET', key) or '0', key) + 1, micros)
  return string.format('%.0f', version), math.floor(micros / 1000)
end
