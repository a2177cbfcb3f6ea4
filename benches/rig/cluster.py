"""Three voters on one machine, and gateways that lease from them."""

import json
import subprocess
import time

from . import calls, configs
from .process import Failed

FORM_SECONDS_MAX = 30


class Voters:
    """Three voters: they keep the ledger, let other nodes in, and answer calls as every node does."""

    def __init__(self, rig, on, upstream_port, binary, documents=None, routes=None, grants=1):
        self.rig, self.binary, self.targets = rig, binary, []
        documents = documents or policies()
        peers = [rig.port() for _ in range(3)]
        self.peers = [f"127.0.0.1:{port}" for port in peers]
        upstream = f"http://127.0.0.1:{upstream_port}"
        for at, peer in enumerate(self.peers):
            name, http = f"voter-{at}", rig.port()
            cluster = {"listen": peer}
            if at:
                cluster["join"] = {"peers": [self.peers[0]], "token": {"file": str(self.token("voter", name))}}
            path = configs.tollgate_config(rig, name, upstream, [{"address": f"127.0.0.1:{http}"}],
                                           documents, True, routes, cluster, grants)
            if not at:
                self.first = path
                self._do(["cluster", "init", "-c", path])
            server = rig.start(name, [binary, "serve", "--config", path], on, (http,))
            self.targets.append(configs.Target(name, [server], http))
            _wait(name, (path.parent / "a.sock").exists)
        _wait("three voters", self._three)

    def token(self, role, name):
        """A file with a one-time token for one node."""
        path = self.rig.dir / f"{name}.token"
        self._do(["cluster", "token", "--role", role, "-c", self.first, "-o", path])
        return path

    def gateway(self, name, on, upstream_port, audit=True):
        """A gateway that neither votes nor stores: a lease client."""
        port = self.rig.port()
        cluster = {"role": "client", "join": {"peers": self.peers, "token": {"file": str(self.token("client", name))}}}
        path = configs.tollgate_config(self.rig, name, f"http://127.0.0.1:{upstream_port}",
                                       [{"address": f"127.0.0.1:{port}"}], policies(), audit, cluster=cluster)
        server = self.rig.start(name, [self.binary, "serve", "--config", path], on, (port,))
        return configs.Target(name, [server], port)

    def _three(self):
        shown = json.loads(self._do(["cluster", "status", "--json", "-c", self.first]))
        members = (shown.get("led") or {}).get("members", [])
        return sum(not member["learner"] for member in members) == 3

    def _do(self, words):
        done = subprocess.run([str(word) for word in [self.binary, *words]], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"tollgate {' '.join(str(word) for word in words[:2])}: {done.stderr.strip()}")
        return done.stdout


def _wait(what, is_so):
    until = time.monotonic() + FORM_SECONDS_MAX
    while not is_so():
        if time.monotonic() > until:
            raise Failed(f"{what}: not ready after {FORM_SECONDS_MAX} s")
        time.sleep(0.1)


def policies():
    return {server: calls.POLICY for server in configs.ROUTES}
