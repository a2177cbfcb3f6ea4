"""Load, exactness and an MCP server by `tollgate-loadtest`."""

import contextlib
import http.client
import json
import math
import os
import signal
import subprocess

from . import calls
from .process import Failed

CONNECTIONS_MAX = 64
# What a started program may take beyond the time that it was told to run.
GRACE_SECONDS = 60
# A reply that comes later than this counts as a failure.
TIMEOUT = "10s"


class Upstream:
    """The recording server: a real one, that knows what it executed. `record` keeps every call, for the exactness test."""

    def __init__(self, rig, on, program, record=False):
        self.port = rig.port()
        command = [program, "upstream", "--listen", f"127.0.0.1:{self.port}"]
        self.server = rig.start("upstream", command + ([] if record else ["--no-record"]), on, (self.port,))
        self.url, self.record = f"http://127.0.0.1:{self.port}/mcp", f"http://127.0.0.1:{self.port}/record"

    def executed(self):
        """How many calls it has executed so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/record")
            return json.load(connection.getresponse())["executed"]
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            raise Failed(f"the upstream does not tell what it executed: {error}") from error
        finally:
            connection.close()


def quantile(buckets, share):
    """The value at or below which this share of `[[value, count], …]` lies; 0 without any."""
    rank, seen = max(1, math.ceil(sum(count for _, count in buckets) * share)), 0
    for value, count in buckets:
        seen += count
        if seen >= rank:
            return value
    return 0


class Client:
    """`tollgate-loadtest` on the cores of the load."""

    def __init__(self, rig, on, program):
        self.folder, self.on, self.program = rig.dir / "client", on, program
        self.folder.mkdir()

    def run(self, setup, rate, seconds, warm_up=0):
        """An open loop at a fixed rate; every reply is compared with what the upstream must have said.

        What is sent while it warms up (connections and sessions are opened then) is in no percentile.
        """
        arguments = json.dumps(setup.arguments, separators=(",", ":"))
        return self._do("run", setup, setup.urls, warm_up + seconds, [
            "--call", f"{setup.tool} {arguments}", "--rate", rate, "--duration", f"{seconds}s", "--warm-up", f"{warm_up}s",
            "--connections", CONNECTIONS_MAX, "--threads", 1, "--check", "on"], (0, 1))

    def limits(self, setup, windows, record):
        """The exactness test; its document, whatever the verdict."""
        arguments = json.dumps(setup.arguments, separators=(",", ":"))
        options = ["--tool", setup.tool, "--args", arguments, "--max", calls.EXACT_MAX, "--window", calls.EXACT_WINDOW,
                   "--windows", windows, "--record", record]
        for path in setup.audit:
            options += ["--audit", path]
        return self._do("limits", setup, setup.limited, (windows + 2) * calls.EXACT_SECONDS, options, (0, 1, 3, 4))

    def _do(self, what, setup, urls, seconds, options, statuses):
        out = self.folder / f"{what}.json"
        out.unlink(missing_ok=True)
        command = [self.program, what, *urls, "--protocol", setup.protocol, "--timeout", TIMEOUT, "--out", out, *options]
        if setup.callers:
            # Tokens stand in a file: every process of the machine can read a command line.
            grants = self.folder / "grants"
            callers = setup.callers if what == "limits" else setup.callers[:1]
            grants.write_text("".join(f"{name} {token}\n" for name, token in callers))
            command += ["--grants", grants]
        status, text = ended([str(word) for word in command], self.on, seconds + GRACE_SECONDS)
        if status not in statuses or not out.is_file():
            raise Failed(f"tollgate-loadtest {what} ended with {status}:\n{_last(text)}")
        try:
            return json.loads(out.read_text())
        except ValueError as error:
            raise Failed(f"tollgate-loadtest {what} wrote no JSON: {error}") from error


def _last(text, lines=8):
    return "\n".join(text.strip().splitlines()[-lines:])


def ended(command, on, seconds_max):
    """Runs a command on these cores; its status and what it said. It does not outlive this function."""
    popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                             errors="replace", start_new_session=True, preexec_fn=lambda: os.sched_setaffinity(0, on))
    try:
        text, _ = popen.communicate(timeout=seconds_max)
    except BaseException as why:
        # It may have ended by itself meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)
        text, _ = popen.communicate()
        if isinstance(why, subprocess.TimeoutExpired):
            raise Failed(f"{' '.join(command[:2])} did not end within {seconds_max} s:\n{_last(text)}") from why
        raise
    return popen.returncode, text
