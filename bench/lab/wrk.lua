-- Sends requests drawn from a file of "path token" lines: GET, or POST of words under ids of their own.
-- Arguments: the file, then for a POST four hex digits that tell this run from others, and the words.

local requests, bodies, count, run, words

function init(args)
  requests, count = {}, 0
  run, words = args[2], args[3]
  math.randomseed(os.time())
  for line in io.lines(args[1]) do
    local path, token = line:match("^(%S+) (%S+)$")
    local headers = { ["Authorization"] = "Bearer " .. token }
    if words then
      headers["Content-Type"] = "application/json"
      requests[#requests + 1] = { path, headers }
    else
      -- whole requests, so that drawing one is all there is to do
      requests[#requests + 1] = wrk.format("GET", path, headers)
    end
  end
end

function request()
  local drawn = requests[math.random(#requests)]
  if not words then
    return drawn
  end
  count = count + 1
  -- random where an id of a client is, unique by the run and the count
  local id = string.format("%08x-%s-4%03x-8%03x-%012x", math.random(0, 0x7fffffff), run,
    math.random(0, 0xfff), math.random(0, 0xfff), count)
  return wrk.format("POST", drawn[1], drawn[2], '{"id":"' .. id .. '","content":"' .. words .. '"}')
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"seconds":%.6f,"errors":%d,"p50":%.1f,"p99":%.1f}\n',
    summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
