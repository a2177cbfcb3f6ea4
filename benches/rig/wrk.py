"""Load by wrk: a closed loop of kept connections that send one fixed call."""

import json
import os
import subprocess
import time

from . import calls
from .install import find
from .process import Failed, say

SCRIPT = """
local file = assert(io.open("@BODY@", "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
@HEADERS@
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests":%d,"microseconds":%d,"p50_us":%d,"p99_us":%d,"p999_us":%d,"errors":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def script(rig, name, body):
    """Writes the Lua script of a call; returns its path."""
    data = rig.dir / f"{name}.body"
    data.write_text(body)
    headers = "\n".join(f'wrk.headers["{key}"] = "{value}"' for key, value in calls.HEADERS.items())
    path = rig.dir / f"{name}.lua"
    path.write_text(SCRIPT.replace("@BODY@", str(data)).replace("@HEADERS@", headers))
    return path


class Load:
    """wrk while it runs; leaving the block of a `with` ends it."""

    def __init__(self, url, lua, connections, seconds, on):
        command = [find("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(lua), url]
        self._popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, start_new_session=True,
                                       preexec_fn=lambda: os.sched_setaffinity(0, on))
        self._seconds = seconds

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()

    def result(self):
        """Waits; the figures of the whole run."""
        try:
            text, _ = self._popen.communicate(timeout=self._seconds + 30)
        except BaseException:
            self._popen.kill()
            self._popen.wait()
            raise
        for line in text.splitlines():
            if line.startswith('{"requests"'):
                return json.loads(line)
        raise Failed(f"wrk gave no result:\n{text[-1500:]}")


def once(url, body):
    """Sends one call by itself; the reply's body, or a Failed that shows what came instead."""
    status, data = calls.ask(url, body)
    if status != 200:
        raise Failed(f"{url} answered {status}: {data[:300]!r}")
    return data


class Invalid(Failed):
    """A run in which not every call was answered by the upstream: its figures mean nothing."""


REPEATS_MAX = 3


def repeated(*run):
    """`measured`, again where a run was invalid (a starved machine can make any proxy refuse); how often is in the result."""
    for repeats in range(REPEATS_MAX + 1):
        try:
            return {**measured(*run), "repeats": repeats}
        except Invalid as problem:
            if repeats == REPEATS_MAX:
                raise
            say(f"repeated: {problem}")
            time.sleep(1)


def measured(target, upstream, url, lua, connections, seconds, on):
    """One run: CPU of the target and requests at the upstream, both read while connections stand and all is warm.

    Opening connections and TLS handshakes fall before the first reading. The upstream's own count is what divides, so
    a call that never reached it (a denial, a refusal) makes the run invalid instead of cheap.
    """
    before = upstream.requests()
    load = Load(url, lua, connections, seconds, on)
    try:
        time.sleep(min(0.5, seconds * 0.25))
        at, cpu, count = time.monotonic(), target.cpu_seconds(), upstream.requests()
        time.sleep(max(0.05, seconds - min(0.5, seconds * 0.25) - 0.15))
        cpu, count = target.cpu_seconds() - cpu, upstream.requests() - count
        took = time.monotonic() - at
    finally:
        result = load.result()
    reached = upstream.requests() - before
    if result["errors"]:
        raise Invalid(f"{url}: wrk counted {result['errors']} errors in {result['requests']} requests")
    # wrk does not count what was in flight when it stopped: at most one for each connection.
    if not result["requests"] <= reached <= result["requests"] + 2 * connections:
        raise Invalid(f"{url}: {result['requests']} were answered, {reached} reached the upstream")
    if count < 1:
        raise Failed(f"{url}: nothing was answered while the run was measured")
    return {
        "cpu_us_request": cpu / count * 1e6, "requests_second": count / took, "core_used": cpu / took,
        "p50_us": result["p50_us"], "p99_us": result["p99_us"], "requests": count,
        "memory_bytes": target.memory_bytes(),
    }
