-- Redis does not roll a script back, so whatever may fail comes before the first write: a key of another type, a value
-- that is no number.

-- Reads a key; an error names it.
local function read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    error(key .. ': ' .. reply.err, 0)
  end
  return reply
end

-- A whole number that a double holds exactly.
local function whole(text, where)
  local number = string.find(text, '^%d+$') and tonumber(text)
  if not number or number > 9007199254740991 then
    error(where .. ': ' .. text .. ' is no number of votes', 0)
  end
  return number
end

