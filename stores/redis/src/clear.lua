-- Deletes all counts and positions, if a partition is at a position, and if the server has exactly the contests and
-- groups that the caller names. Otherwise changes nothing.
--
-- KEYS: position, last, version, contests, groups:10ms, groups:1s, groups:1m, and then every hash of counts.
-- ARGV: the partition and its position, or two empty texts for any position; the number of contests and their names;
--       then for each groups key the number of its members and the members.
-- Returns 1, or 0 if the partition is not at this position, or -1 if the server has other contests or groups. After -1
-- the caller reads the names again.

local FIRST_GROUPS = 5

if ARGV[1] ~= '' and (read('HGET', KEYS[1], ARGV[1]) or '0') ~= ARGV[2] then
  return 0
end

-- Returns whether a set has exactly the members that ARGV lists from index `at` on, and the index of the next list.
-- `size_command` returns the number of members, `member_command` whether a member exists.
local function has_exactly(key, size_command, member_command, at)
  local count = whole(ARGV[at], 'ARGV')
  local is_equal = read(size_command, key) == count
  for i = at + 1, at + count do
    is_equal = is_equal and read(member_command, key, ARGV[i])
    is_equal = is_equal and is_equal ~= 0
  end
  return is_equal, at + 1 + count
end

local version = next_version(KEYS[3])
local are_equal, at = has_exactly(KEYS[4], 'SCARD', 'SISMEMBER', 3)
for k = FIRST_GROUPS, FIRST_GROUPS + 2 do
  local is_equal
  is_equal, at = has_exactly(KEYS[k], 'ZCARD', 'ZSCORE', at)
  are_equal = are_equal and is_equal
end
if not are_equal then
  return -1
end

-- If memory is full, Redis allows UNLINK, and then also allows the later writes of the script. So UNLINK is the first
-- write. A hash may have a million fields: DEL would free them before the next command, UNLINK frees them in the
-- background.
for k = 1, #KEYS do
  redis.call('UNLINK', KEYS[k])
end
redis.call('SET', KEYS[3], version)
return 1
