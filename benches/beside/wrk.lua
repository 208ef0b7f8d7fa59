-- Asks for the paths of a file (one a line) in turn, and writes what it saw as a line of JSON: wrk -s wrk.lua URL -- FILE

local threads, requests, at = 0, {}, 0

function setup(thread)
   thread:set("first", threads * 500) -- the threads begin at different paths
   threads = threads + 1
end

function init(arguments)
   for path in io.lines(arguments[1]) do
      requests[#requests + 1] = wrk.format("GET", path)
   end
   at = first
end

function request()
   at = at + 1
   return requests[at % #requests + 1]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"operations": %d, "seconds": %f, "bytes": %d, "errors": %d, "p50": %f, "p99": %f}\n',
      summary.requests, summary.duration / 1e6, summary.bytes,
      errors.connect + errors.read + errors.write + errors.status + errors.timeout,
      latency:percentile(50) / 1e6, latency:percentile(99) / 1e6))
end
