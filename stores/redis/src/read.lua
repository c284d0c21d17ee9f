-- Redis does not undo the writes of a script that fails. So a script first does what can fail: it reads keys, which may
-- have another type, and parses values, which may not be numbers. Then it writes.

-- Runs a command that reads a key. An error names the key.
local function read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) == 'table' and reply.err then
    error(key .. ': ' .. reply.err, 0)
  end
  return reply
end

-- Parses a whole number that a double can hold exactly. An error names `where`, the key of the text.
local function whole(text, where)
  local number = string.find(text, '^%d+$') and tonumber(text)
  if not number or number > 9007199254740991 then
    error(where .. ': ' .. text .. ' is not a number of votes', 0)
  end
  return number
end

