"""Servers that run on given cores, are measured from /proc, and are ended whatever happens.

Only processes that this script started are ever signalled, each by its own process group.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 5


class Failed(Exception):
    """Something that a person must hear, in words that say what to do."""


def say(text):
    """Progress goes to standard error: standard output holds the result alone."""
    print(text, file=sys.stderr, flush=True)


def cores():
    """(cores of the server under test, cores of the load and the upstream), from those that this process may use."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) == 1:
        say("warning: one core only; load and server share it, and the ratios say less")
        return {mine[0]}, {mine[0]}
    return {mine[0]}, set(mine[1:])


def _children(pid):
    """Processes that a process started, itself included."""
    found = [pid]
    for parent in found:
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                text = Path(f"/proc/{parent}/task/{thread}/children").read_text()
                found.extend(int(child) for child in text.split())
        except OSError:
            continue
    return found


class Server:
    """One started program: its process and those that it started."""

    def __init__(self, name, popen, log):
        self.name, self.popen, self.log = name, popen, log

    def cpu_seconds(self):
        """User and system time of all its processes and threads so far, from /proc/<pid>/stat (resolution 10 ms)."""
        ticks = 0
        for pid in _children(self.popen.pid):
            try:
                # The name in parentheses may hold blanks and parentheses; utime and stime are fields 14 and 15.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_A_SECOND

    def memory_bytes(self):
        """Resident memory of all its processes; pages that they share count once for each."""
        pages = 0
        for pid in _children(self.popen.pid):
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return pages * PAGE_BYTES

    def alive(self):
        return self.popen.poll() is None

    def last_words(self):
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-15:])

    def stop(self):
        """Asks the process group to end, waits, and then ends it."""
        for wanted, seconds in ((signal.SIGTERM, STOP_SECONDS_MAX), (signal.SIGKILL, STOP_SECONDS_MAX)):
            if not self.alive():
                return
            try:
                os.killpg(self.popen.pid, wanted)
            except ProcessLookupError:
                return
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                continue


class Rig:
    """A folder and the servers in it; leaving the block ends both. Ctrl-C and SIGTERM leave the block."""

    def __init__(self, keep=False):
        self.servers, self.keep, self.taken = [], keep, set()
        self.dir = None

    def __enter__(self):
        self._folder = tempfile.mkdtemp(prefix="tollgate-bench-")
        self.dir = Path(self._folder)
        signal.signal(signal.SIGTERM, _interrupted)
        return self

    def __exit__(self, *_):
        for server in reversed(self.servers):
            server.stop()
        if self.keep:
            say(f"kept: {self.dir}")
        else:
            _remove(self.dir)
        return False

    def port(self):
        """A free port of loopback, never the same twice."""
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            if port not in self.taken:
                self.taken.add(port)
                return port

    def start(self, name, command, on, ports=(), env=None, cwd=None):
        """Starts a program on these cores and waits until its ports take connections."""
        log = self.dir / f"{name}.log"
        with open(log, "ab") as out:
            popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd or self.dir,
                env={**os.environ, **(env or {})},
                # A group of its own: Ctrl-C reaches this script alone, which then ends what it started.
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, on),
            )
        server = Server(name, popen, log)
        self.servers.append(server)
        until = time.monotonic() + START_SECONDS_MAX
        for port in ports:
            while not _accepts(port):
                if not server.alive():
                    raise Failed(f"{name} ended while it started:\n{server.last_words()}")
                if time.monotonic() > until:
                    raise Failed(f"{name} does not listen on port {port} after {START_SECONDS_MAX} s:\n{server.last_words()}")
                time.sleep(0.02)
        return server

    def stop(self, server):
        server.stop()
        self.servers.remove(server)


def _interrupted(*_):
    raise KeyboardInterrupt


def _accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.5).close()
        return True
    except OSError:
        return False


def _remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        try:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError:
            continue
    try:
        folder.rmdir()
    except OSError:
        say(f"could not remove {folder}")
