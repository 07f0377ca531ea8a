-- Counts requests that replicas allowed, for several buckets at once, and answers how far each is from being full again.
-- KEYS: buckets. ARGV: for each of them microseconds between two requests, microseconds of a whole burst, requests.
-- Time is this server's, so that the clocks of the replicas do not matter.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local answers = {}
for at, key in ipairs(KEYS) do
    local interval = tonumber(ARGV[at * 3 - 2])
    local burst = tonumber(ARGV[at * 3 - 1])
    local full_at = math.max(tonumber(redis.call('GET', key)) or now, now)
    -- What replicas allowed before they knew of each other is owed, but never more than a second burst.
    full_at = math.min(full_at + interval * tonumber(ARGV[at * 3]), now + 2 * burst)
    local ahead = full_at - now
    redis.call('SET', key, string.format('%.3f', full_at), 'PX', math.ceil(ahead / 1000) + 1)
    answers[at] = string.format('%.3f', ahead)
end
return answers
