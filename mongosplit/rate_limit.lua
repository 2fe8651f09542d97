-- The fleet's tickets: who may go when, at a rate that every caller brings along.
--
-- KEYS[1]  hash {epoch, reserved, served, at}; at is microseconds of this server's clock
-- KEYS[2]  sorted set of tickets given back, "ticket:cost" scored by ticket
-- ARGV     verb, rate, cost, epoch, ticket
--   reserve rate cost new-epoch    a ticket, in a new epoch where there is none
--   look    rate cost epoch ticket what the ticket has to wait now
--   give    0 cost epoch ticket    the ticket was not used; no time passes by it
-- Returns {epoch, ticket, milliseconds to wait}: 0 go, -1 the ticket is void.

local BURST_SECONDS = 0.25
local IDLE_MILLISECONDS = 3600000
local STOPPED_MILLISECONDS = 250

local verb, rate, cost = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'reserved', 'served', 'at')
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local epoch, ticket = state[1], tonumber(ARGV[5])
local reserved, served, at = tonumber(state[2]), tonumber(state[3]), tonumber(state[4])

if verb ~= 'reserve' and epoch ~= ARGV[4] then
  return {ARGV[4], '0', -1}
end
if not epoch then
  epoch, reserved, served, at = ARGV[4], 0, 0, now
  redis.call('DEL', KEYS[2])
end

-- What was given back is served without taking time, when its turn has come.
local function advance()
  served = served + rate * math.max(0, now - at) / 1000000
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  while first[1] and tonumber(first[2]) <= served do
    served = served + tonumber(string.match(first[1], ':(.+)$'))
    redis.call('ZREM', KEYS[2], first[1])
    first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  end
  served, at = math.min(served, reserved + rate * BURST_SECONDS), now
end

-- The last ticket, and those given back before it, leave nothing behind.
local function give_back()
  if cost > 0 then
    redis.call('ZADD', KEYS[2], ARGV[5], ARGV[5] .. ':' .. ARGV[3])
  end
  local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
  while last[1] and tonumber(last[2]) + tonumber(string.match(last[1], ':(.+)$')) == reserved do
    reserved = tonumber(last[2])
    redis.call('ZREM', KEYS[2], last[1])
    last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
  end
end

local function milliseconds()
  if rate <= 0 then
    return STOPPED_MILLISECONDS
  end
  if served >= ticket then
    return 0
  end
  return math.min(IDLE_MILLISECONDS, math.ceil((ticket - served) / rate * 1000))
end

if verb == 'give' then
  give_back()
else
  advance()
end
if verb == 'reserve' then
  ticket, reserved = reserved, reserved + cost
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'reserved', string.format('%.17g', reserved),
  'served', string.format('%.17g', served), 'at', string.format('%.0f', at))
redis.call('PEXPIRE', KEYS[1], IDLE_MILLISECONDS)
redis.call('PEXPIRE', KEYS[2], IDLE_MILLISECONDS)
return {epoch, string.format('%.17g', ticket), milliseconds()}
