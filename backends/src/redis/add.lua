-- Adds the counts of a batch [from, to) of a partition and moves its position, or changes nothing.
--
-- KEYS: position, version, contests, groups:10ms, groups:1s, groups:1m, and then a hash of counts each.
-- ARGV: partition, from, to, the number of contests and their names; then for each hash
--         the index in KEYS of the groups it belongs to, or 0,
--         if it is not 0: its name there, its start and when it expires (0: never), in Unix milliseconds,
--         the number of fields, the fields, and the votes of each.
-- Returns nil, or where the position is if that is not `from`.

local FIRST_HASH = 7
-- Of the arguments of one call: Lua's stack holds 8 000.
local CHUNK = 1000

local partition, from, to = ARGV[1], ARGV[2], ARGV[3]
local position = read('HGET', KEYS[1], partition) or '0'
if position ~= from then
  return position
end

-- What the fields of a hash will be, in chunks of fields and values.
local function sums(key, fields, count)
  local chunks = {}
  for first = 0, count - 1, CHUNK do
    local size = math.min(CHUNK, count - first)
    local at = fields + first
    local old = read('HMGET', key, unpack(ARGV, at, at + size - 1))
    local chunk = {}
    for i = 1, size do
      local votes = whole(ARGV[at + count + i - 1], key) + whole(old[i] or '0', key)
      chunk[2 * i - 1] = ARGV[at + i - 1]
      chunk[2 * i] = string.format('%.0f', votes)
    end
    chunks[#chunks + 1] = chunk
  end
  return chunks
end

local version, now = next_version(KEYS[2])
local contests = whole(ARGV[4], 'ARGV')
read('SCARD', KEYS[3])

local hashes, at = {}, 5 + contests
for k = FIRST_HASH, #KEYS do
  local hash = { key = KEYS[k], groups = KEYS[whole(ARGV[at], 'ARGV')] }
  at = at + 1
  if hash.groups then
    hash.name, hash.start, hash.expires = ARGV[at], tonumber(ARGV[at + 1]), whole(ARGV[at + 2], 'ARGV')
    if not hash.start then
      error('a group of windows begins at a number', 0)
    end
    hash.is_new = not read('ZSCORE', hash.groups, hash.name)
    at = at + 3
  end
  local count = whole(ARGV[at], 'ARGV')
  hash.chunks = sums(hash.key, at + 1, count)
  hashes[#hashes + 1] = hash
  at = at + 1 + 2 * count
end
if at ~= #ARGV + 1 then
  error('these are not the arguments of an addition', 0)
end

-- From here on nothing can fail.
redis.call('HSET', KEYS[1], partition, to)
redis.call('SET', KEYS[2], version)
for i = 5, 4 + contests do
  redis.call('SADD', KEYS[3], ARGV[i])
end
for _, hash in ipairs(hashes) do
  for _, chunk in ipairs(hash.chunks) do
    redis.call('HSET', hash.key, unpack(chunk))
  end
  if hash.groups then
    if hash.is_new then
      redis.call('ZADD', hash.groups, string.format('%.0f', hash.start), hash.name)
    end
    if hash.expires > 0 then
      redis.call('PEXPIREAT', hash.key, string.format('%.0f', hash.expires))
      if hash.is_new then
        -- Groups that have expired are forgotten when one begins.
        local lifetime = hash.expires - hash.start
        redis.call('ZREMRANGEBYSCORE', hash.groups, '-inf', string.format('%.0f', now - lifetime))
      end
    end
  end
end
return false
