"""The rounds of `benches/compare`: every setup is started, must prove itself, is loaded, measured and ended, in turn."""

import time
from collections import Counter

from . import adapters, setups
from .loadtest import Client, Upstream, quantile
from .process import Failed, cores, say

WARM_UP_SECONDS = 1
# A run that was disturbed is made again; a setup that failed this often in one part is left alone after that.
REPEATS_MAX = 2
FAILURES_MAX = 2
# A percentile is told where at least so many values lie beyond it.
BEYOND_MIN = 5
LATE_SECONDS_MAX = 0.5
IDLE_SECONDS = 0.5
# A warm-up may hold one call more or less than its rate says.
COUNT_OFF_MAX = 1
SHARES = {"p50_us": 0.50, "p99_us": 0.99, "p999_us": 0.999}


def enough(count, share):
    """Whether so many values tell this percentile."""
    return count * (1 - share) >= BEYOND_MIN - 1e-6


class Disturbed(Failed):
    """The load was not what it should have been: the run says nothing about the setup."""


class Bench:
    """What all runs have in common."""

    def __init__(self, rig, certs, loadtest, tollgate, others, busy=False):
        self.rig, self.certs, self.loadtest, self.tollgate, self.others = rig, certs, loadtest, tollgate, others
        self.gateway_core, self.load_cores = cores()
        self._slots, self.busy = 0, busy
        self.failures = Counter()

    def _started(self, name, upstream, rig):
        if name in self.others:
            return adapters.start(self.others[name], rig, self.gateway_core, upstream.url, self.loadtest)
        makers = setups.Makers(rig, self.gateway_core, upstream.port, self.certs, self.tollgate)
        return getattr(makers, name)()

    def _slot(self, name):
        self._slots += 1
        return self.rig.slot(f"{self._slots}-{name}")

    def measured(self, name, rate, seconds, protocol=None):
        """One run of one setup; Failed with the last words of its processes where it does not do its work."""
        for repeat in range(REPEATS_MAX + 1):
            with self._slot(name) as rig:
                upstream = Upstream(rig, self.load_cores, self.loadtest)
                try:
                    setup = self._started(name, upstream, rig)
                    if protocol and name not in self.others:
                        setup.protocol = protocol
                    client = Client(rig, self.load_cores, self.loadtest)
                    return {**_run(setup, client, upstream, rate, seconds, self.busy), "repeats": repeat}
                except Disturbed as why:
                    if repeat == REPEATS_MAX:
                        raise
                    say(f"again: {name}: {why}")
                except Failed as why:
                    raise Failed(_with_last_words(why, rig, upstream)) from why

    def limited(self, name, windows):
        """The exactness test of one setup: the verdict and the counts."""
        with self._slot(name) as rig:
            upstream = Upstream(rig, self.load_cores, self.loadtest, record=True)
            try:
                setup = self._started(name, upstream, rig)
                if not setup.limited:
                    return None
                found = Client(rig, self.load_cores, self.loadtest).limits(setup, windows, upstream.record)["limits"]
            except Failed as why:
                raise Failed(_with_last_words(why, rig, upstream)) from why
        return {
            "verdict": found["verdict"], "sentence": found["sentence"], "max": found["max"], "window_ms": found["window_ms"],
            "windows": [{"key": key["key"], **window} for key in found["keys"] for window in key["windows"]],
        }


def _with_last_words(why, rig, upstream):
    texts = [str(why)]
    for server in rig.servers:
        words = server.last_words()
        if server is not upstream.server and words and words not in texts[0]:
            texts.append(f"{server.name} said last:\n{words}")
    return "\n".join(texts)


def _all_ok(document, what):
    """The one round of a run in which every reply was the right one and every request was sent in time."""
    found = document["rounds"][0]
    wrong = {f"{kind['class']} {kind.get('code', '')}".strip(): kind["count"] for kind in found["classes"] if kind["class"] != "ok"}
    if wrong:
        samples = "\n".join(sample["text"] for sample in found.get("samples", [])[:3])
        counts = ", ".join(f"{count} {kind}" for kind, count in wrong.items())
        raise Failed(f"{what}: of {found['due']} calls {counts}\n{samples}")
    return found


def _run(setup, client, upstream, rate, seconds, busy):
    """Proofs and warm-up, then the run that counts."""
    for proof in setup.proofs:
        proof()
    _all_ok(client.run(setup, rate, WARM_UP_SECONDS), "warming up")
    idle = _idle(setup.servers)
    lines, executed = _lines(setup.audit), upstream.executed()
    before, upstream_before = _used(setup.servers), upstream.server.cpu_seconds()
    document = client.run(setup, rate, seconds, WARM_UP_SECONDS)
    after, upstream_after = _used(setup.servers), upstream.server.cpu_seconds()
    found = _all_ok(document, "measuring")
    # Calls of the client's own warm-up cost the same and are counted as well.
    calls = found["due"] + rate * WARM_UP_SECONDS
    executed = upstream.executed() - executed
    if setup.counted and abs(executed - calls) > COUNT_OFF_MAX:
        raise Failed(f"{calls} calls were answered and the upstream executed {executed}")
    if found["unsent"]:
        raise Disturbed(f"the client did not send {found['unsent']} of {found['due']} calls")
    if found["client"]["bottleneck"] and not busy:
        raise Disturbed(f"the client was the bottleneck: {found['client']['verdict']}")
    if setup.audit and _lines(setup.audit) - lines < found["due"]:
        raise Failed(f"the audit trail has {_lines(setup.audit) - lines} lines more after {found['due']} calls")
    processes = [
        {"name": process["name"], "upstream": process["upstream"], "memory_bytes": process["memory_bytes"],
         "cpu_us_request": (process["cpu_seconds"] - before.get(key, {"cpu_seconds": 0})["cpu_seconds"]) / calls * 1e6}
        for key, process in after.items()]
    own = [process for process in processes if not process["upstream"]]
    buckets = found["latency"]["buckets"]
    return {
        "cpu_us_request": sum(process["cpu_us_request"] for process in own),
        "memory_bytes": sum(process["memory_bytes"] for process in own),
        **{name: quantile(buckets, share) / 1000 for name, share in SHARES.items() if enough(found["due"], share)},
        "undisturbed": not found["client"]["bottleneck"],
        "idle_cpu_us_second": idle,
        # Runs too short for a percentile have it from all rounds together.
        "buckets": None if enough(found["due"], max(SHARES.values())) else buckets,
        "requests": found["due"], "rate": rate, "seconds": found["seconds"], "protocol": document["config"]["protocol"],
        # The last reply came long after the last call was due: it could not keep up, and its queue was measured.
        "kept_up": found["seconds"] <= seconds + LATE_SECONDS_MAX,
        "processes": processes,
        "upstream_cpu_us_request": (upstream_after - upstream_before) / calls * 1e6,
        "client_cpu_us_request": found["client"]["cpu_us_request"],
        "client_error_us": found.get("error_ns", 0) / 1000,
    }


def _idle(servers):
    """CPU that it uses while nobody asks it anything, µs a second."""
    if not servers:
        return 0.0
    spent, begun = sum(server.cpu_seconds() for server in servers), time.monotonic()
    time.sleep(IDLE_SECONDS)
    return (sum(server.cpu_seconds() for server in servers) - spent) / (time.monotonic() - begun) * 1e6


def _used(servers):
    """What every process has used, by server and pid."""
    return {
        (server.name, process.pid): {
            "name": server.name if process.pid == server.popen.pid else _shown(process.command),
            # A gateway that starts its server is not charged for it.
            "upstream": adapters.is_upstream(process.command),
            "cpu_seconds": process.cpu_seconds, "memory_bytes": process.memory_bytes,
        }
        for server in servers for process in server.processes()}


def _shown(command):
    return " ".join(word.rsplit("/", 1)[-1] for word in command[:3]).strip()


def _lines(paths):
    total = 0
    for path in paths:
        try:
            with open(path, "rb") as file:
                total += sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        except OSError as error:
            raise Failed(f"no audit trail: {error}") from error
    return total


class Part:
    """One table: setups that are measured at one rate, round by round."""

    def __init__(self, name, names, rate, seconds, protocol=None):
        self.name, self.names, self.rate, self.seconds, self.protocol = name, names, rate, seconds, protocol

    def round(self, bench, number, runs, failed):
        """Measures every setup once; each is first, second and last equally often over the rounds."""
        at = number % len(self.names)
        figures = []
        for name in self.names[at:] + self.names[:at]:
            if bench.failures[self.name, name] >= FAILURES_MAX:
                continue
            begun = time.time()
            try:
                run = bench.measured(name, self.rate, self.seconds, self.protocol)
            except Failed as why:
                bench.failures[self.name, name] += 1
                failed.append({"part": self.name, "setup": name, "round": number, "why": str(why)})
                say(f"{name} failed: {why}")
                continue
            runs.append({"part": self.name, "setup": name, "round": number, "began_unix_s": begun, **run})
            figures.append(f"{name} {run['cpu_us_request']:.0f}")
        return figures
