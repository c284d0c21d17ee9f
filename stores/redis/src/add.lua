-- Adds the counts of a batch [from, to) of a partition, and sets the partition's position to `to`. Changes nothing if
-- the position is not `from`.
--
-- KEYS: position, last, version, contests, groups:10ms, groups:1s, groups:1m, then each hash of counts, and then each
--       staged list. A staged list has fields of a hash with their votes: field, votes, field, votes, ...
-- ARGV: partition, from, to, the last vote or an empty text, the number of contests and their names, the number of
--       hashes. Then for each hash:
--         the index in KEYS of the groups key that lists the hash, or 0 if no groups key does;
--         if the index is not 0: the member of the groups key that names the hash, and the start and the expiry of the
--         hash, in Unix milliseconds (expiry 0: never);
--         the number of its staged lists;
--         the number of its other fields, these fields, and the votes of each of these fields.
-- Returns nil, or the partition's position if it is not `from`.

local FIRST_HASH = 8
-- The maximum number of fields in one command: Lua's stack holds 8 000 values.
local MAX_FIELDS = 1000

local partition, from, to, last = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local position = read('HGET', KEYS[1], partition) or '0'
if position ~= from then
  return position
end

-- Returns the arguments of the HSET that adds votes to fields of a hash: each field with its new value.
local function new_values(key, fields, votes)
  local old = read('HMGET', key, unpack(fields))
  local values = {}
  for i, field in ipairs(fields) do
    values[2 * i - 1] = field
    values[2 * i] = old[i] and string.format('%.0f', whole(votes[i], key) + whole(old[i], key)) or votes[i]
  end
  return values
end

-- Returns the arguments of the HSET that adds a staged list to a hash.
local function new_values_of_list(key, list)
  local staged = read('LRANGE', list, 0, -1)
  if #staged == 0 or #staged % 2 ~= 0 or #staged > 2 * MAX_FIELDS then
    error(list .. ': the staged counts are gone; try again', 0)
  end
  local fields, votes = {}, {}
  for i = 1, #staged / 2 do
    fields[i], votes[i] = staged[2 * i - 1], staged[2 * i]
  end
  return new_values(key, fields, votes)
end

local version, now = next_version(KEYS[3])
local contest_count = whole(ARGV[5], 'ARGV')
-- Fails if the key is of another type.
read('SCARD', KEYS[4])
read('HLEN', KEYS[2])

local at = 6 + contest_count
local hash_count = whole(ARGV[at], 'ARGV')
at = at + 1
local hashes, next_list = {}, FIRST_HASH + hash_count
for k = FIRST_HASH, FIRST_HASH + hash_count - 1 do
  local hash = { key = KEYS[k], groups = KEYS[whole(ARGV[at], 'ARGV')], lists = {}, chunks = {} }
  at = at + 1
  if hash.groups then
    hash.member, hash.start, hash.expires_at = ARGV[at], tonumber(ARGV[at + 1]), whole(ARGV[at + 2], 'ARGV')
    if not hash.start then
      error('the start of a group of windows is not a number', 0)
    end
    hash.is_new = not read('ZSCORE', hash.groups, hash.member)
    at = at + 3
  end
  for _ = 1, whole(ARGV[at], 'ARGV') do
    -- Only checks the list. A list may be one of thousands, so its new values are not kept in memory.
    new_values_of_list(hash.key, KEYS[next_list])
    hash.lists[#hash.lists + 1] = KEYS[next_list]
    next_list = next_list + 1
  end
  local count = whole(ARGV[at + 1], 'ARGV')
  local first = at + 2
  for i = first, first + count - 1, MAX_FIELDS do
    local i_end = math.min(i + MAX_FIELDS, first + count) - 1
    local fields, votes = { unpack(ARGV, i, i_end) }, { unpack(ARGV, i + count, i_end + count) }
    hash.chunks[#hash.chunks + 1] = new_values(hash.key, fields, votes)
  end
  hashes[#hashes + 1] = hash
  at = first + 2 * count
end
if at ~= #ARGV + 1 or next_list ~= #KEYS + 1 then
  error('an addition has too few or too many arguments', 0)
end

-- If memory is full, Redis refuses the first write, so nothing has changed. The later writes can't fail.
redis.call('HSET', KEYS[1], partition, to)
if last ~= '' then
  redis.call('HSET', KEYS[2], partition, last)
end
redis.call('SET', KEYS[3], version)
for i = 6, 5 + contest_count do
  redis.call('SADD', KEYS[4], ARGV[i])
end
for _, hash in ipairs(hashes) do
  for _, chunk in ipairs(hash.chunks) do
    redis.call('HSET', hash.key, unpack(chunk))
  end
  for _, list in ipairs(hash.lists) do
    redis.call('HSET', hash.key, unpack(new_values_of_list(hash.key, list)))
    redis.call('UNLINK', list)
  end
  if hash.groups then
    if hash.is_new then
      redis.call('ZADD', hash.groups, string.format('%.0f', hash.start), hash.member)
    end
    if hash.expires_at > 0 then
      redis.call('PEXPIREAT', hash.key, string.format('%.0f', hash.expires_at))
      if hash.is_new then
        -- With each new group, remove the names of expired groups.
        local lifetime = hash.expires_at - hash.start
        redis.call('ZREMRANGEBYSCORE', hash.groups, '-inf', string.format('%.0f', now - lifetime))
      end
    end
  end
end
return false
