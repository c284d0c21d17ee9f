-- Returns the version after a change, and the time in Unix milliseconds.
--
-- The version is at least the time in Unix microseconds. A change takes longer than a microsecond, so the version does
-- not run ahead of the clock. So if a server loses its data or restores older data, it does not reuse a version that a
-- client has seen with other counts, unless its clock is set back.
local function next_version(key)
  local now = redis.call('TIME')
  local micros = now[1] * 1000000 + now[2]
  local version = math.max(whole(read('GET', key) or '0', key) + 1, micros)
  return string.format('%.0f', version), math.floor(micros / 1000)
end
