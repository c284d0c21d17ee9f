-- Forgets everything, positions included, unless there is more than the caller knows.
--
-- KEYS: position, version, contests, groups:10ms, groups:1s, groups:1m, and then every hash of counts.
-- ARGV: the number of contests and their names; then for each groups key the number of groups and their names.
-- Returns 1, or 0 if there are other contests or groups: the caller looks again.

-- Whether the key has exactly the members that are told from `at` on, and where the next are told.
local function is_known(key, size, has, at)
  local count = whole(ARGV[at], 'ARGV')
  local known = read(size, key) == count
  for i = at + 1, at + count do
    known = known and read(has, key, ARGV[i])
    known = known and known ~= 0
  end
  return known, at + 1 + count
end

local version = next_version(KEYS[2])
local known, at = is_known(KEYS[3], 'SCARD', 'SISMEMBER', 1)
for k = 4, 6 do
  local same
  same, at = is_known(KEYS[k], 'ZCARD', 'ZSCORE', at)
  known = known and same
end
if not known then
  return 0
end

-- Deleting comes first: it is allowed where memory is full, and what follows a write is allowed too.
for k = 1, #KEYS do
  redis.call('DEL', KEYS[k])
end
redis.call('SET', KEYS[2], version)
return 1
