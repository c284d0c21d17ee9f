-- Casts votes over REST with wrk, and prints the result as a line of JSON.
--
--   wrk [OPTIONS] --script votes.lua http://HOST:PORT/v1/votes -- without-ids|random-ids|one-id
--
-- The argument sets the field vote_id: no vote has it, each vote has a new random UUID, or all votes have the same UUID.

local vote = '{"name":"Pink Floyd","album":"The Wall","year":"1979","rank":"5"}'
local zero_id = "00000000-0000-4000-8000-000000000000"
local vote_with_id = vote:gsub("}$", ',"vote_id":"' .. zero_id .. '"}')

-- Returns a random UUID of version 4.
local function random_id()
  local random = math.random
  return string.format("%08x-%04x-4%03x-%04x-%06x%06x", random(0, 0xffffffff), random(0, 0xffff), random(0, 0xfff), random(0x8000, 0xbfff),
    random(0, 0xffffff), random(0, 0xffffff))
end

-- wrk calls this function in each of its threads.
function init(arguments)
  local ids = arguments[1]
  assert(ids == "without-ids" or ids == "random-ids" or ids == "one-id", "the argument is without-ids, random-ids or one-id")
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = ids == "without-ids" and vote or vote_with_id
  if ids == "random-ids" then
    local device = io.open("/dev/urandom", "rb")
    local first, second, third, fourth = device:read(4):byte(1, 4)
    device:close()
    math.randomseed(((first * 256 + second) * 256 + third) * 256 + fourth)
    -- All requests have the same text before and after the id. If there is no function `request`, wrk sends the same request again.
    local text = wrk.format()
    local from, to = text:find(zero_id, 1, true)
    local head, tail = text:sub(1, from - 1), text:sub(to + 1)
    function request()
      return head .. random_id() .. tail
    end
  end
end

-- wrk calls this function at the end. Its times are in microseconds, and `status` is the number of responses with a status above 399.
function done(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "refused": %d, "lost": %d}', summary.requests,
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
