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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 5
# linux/posix-timers.h
CPUCLOCK_SCHED = 2


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


@dataclass
class Process:
    """What one process has used so far."""

    pid: int
    command: list
    cpu_seconds: float
    memory_bytes: int


def _cpu_seconds(pid):
    """User and system time of a process, its ended threads included, in nanoseconds: /proc/<pid>/stat has 10 ms only.

    The clock is the one that clock_getcpuclockid(3) names; Python has that function for threads alone.
    """
    return time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED)


class Server:
    """One started program: its process and those that it started."""

    def __init__(self, name, popen, log):
        self.name, self.popen, self.log = name, popen, log

    def cpu_seconds(self):
        """User and system time of all its processes and threads so far."""
        return sum(process.cpu_seconds for process in self.processes())

    def memory_bytes(self):
        """Resident memory of all its processes; pages that they share count once for each."""
        return sum(process.memory_bytes for process in self.processes())

    def processes(self):
        """What it and the processes that it started have used so far."""
        found = []
        for pid in _children(self.popen.pid):
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found.append(Process(pid, [word.decode(errors="replace") for word in command], _cpu_seconds(pid), pages * PAGE_BYTES))
            except OSError:
                continue
        return found

    def alive(self):
        return self.popen.poll() is None

    def last_words(self):
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-15:])

    def stop(self):
        """Asks the process group to end, waits, and then ends it: also what a leader that has ended left behind."""
        for wanted, seconds in ((signal.SIGTERM, STOP_SECONDS_MAX), (signal.SIGKILL, STOP_SECONDS_MAX)):
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

    @contextmanager
    def slot(self, name):
        """A rig in a folder of its own inside this one: what is started in it ends with the block."""
        inner = Rig(self.keep)
        inner.dir, inner.taken = self.dir / name, self.taken
        inner.dir.mkdir()
        try:
            yield inner
        finally:
            inner.end()
            if not self.keep:
                _remove(inner.dir)

    def end(self):
        """Ends every server, the last one first; an impatient Ctrl-C leaves none of them behind."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while self.servers:
                self.servers.pop().stop()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __exit__(self, *_):
        self.end()
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

    def start(self, name, command, on, ports=(), env=None, cwd=None, quiet=False, seconds_max=START_SECONDS_MAX):
        """Starts a program on these cores and waits until its ports take connections; `quiet` throws standard output away."""
        log = self.dir / f"{name}.log"
        with open(log, "ab") as out:
            popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if quiet else out, stderr=out, cwd=cwd or self.dir,
                env={**os.environ, **(env or {})},
                # A group of its own: Ctrl-C reaches this script alone, which then ends what it started.
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, on),
            )
        server = Server(name, popen, log)
        self.servers.append(server)
        until = time.monotonic() + seconds_max
        for port in ports:
            while not _accepts(port):
                if not server.alive():
                    raise Failed(f"{name} ended while it started:\n{server.last_words()}")
                if time.monotonic() > until:
                    raise Failed(f"{name} does not listen on port {port} after {seconds_max} s:\n{server.last_words()}")
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
