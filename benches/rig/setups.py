"""What `benches/compare` measures side by side: nothing, proxies, Tollgate with one thing on after the other, a cluster."""

from dataclasses import dataclass, field

from . import calls, configs, redis
from .cluster import Voters
from .process import Failed

ROUTES = {"images": "/mcp", configs.LIMITED: "/mcp"}
GRANTS_MANY = 1_000
# Grants whose limits are tested; each has its own counter.
CALLERS = 2


@dataclass
class Setup:
    """Something to measure: where it answers, what it runs, and its limit if it has one."""

    name: str
    what: str
    urls: list
    servers: list
    # URLs of an endpoint that admits calls.EXACT_MAX calls a grant in calls.EXACT_WINDOW; empty = it has no limits.
    limited: list = field(default_factory=list)
    # Audit logs that it writes.
    audit: list = field(default_factory=list)
    # (name, token): the first one calls, all of them try the limit; empty = anybody may call.
    callers: list = field(default_factory=lambda: list(calls.tokens(CALLERS)))
    protocol: str = calls.VERSION
    tool: str = calls.TOOL
    arguments: dict = field(default_factory=lambda: dict(calls.ARGUMENTS))
    # Functions that raise Failed where it does not do what its name says.
    proofs: list = field(default_factory=list)
    # Whether its calls reach the upstream that counts them.
    counted: bool = True

    def processes(self):
        return [(server, process) for server in self.servers for process in server.processes()]


def _refuses_strangers(url):
    status, data = calls.ask(url, calls.call(calls.SMALL_BYTES), {"Authorization": "Bearer tg_" + "x" * 43})
    if status != 401:
        raise Failed(f"{url} took an unknown token: {status} {data[:200]!r}")


def _applies_policy(url):
    status, data = calls.ask(url, calls.call(calls.SMALL_BYTES, width=2 * calls.SIDE_MAX))
    if calls.TOO_LARGE.encode() not in data:
        raise Failed(f"{url} allowed what its policy denies: {status} {data[:200]!r}")


class Makers:
    """One function a setup, by its name; each starts what it needs before the given upstream."""

    def __init__(self, rig, on, upstream_port, certs, tollgate):
        self.rig, self.on, self.port, self.certs, self.binary = rig, on, upstream_port, certs, tollgate

    def direct(self):
        return Setup("direct", "no gateway", [f"http://127.0.0.1:{self.port}/mcp"], [])

    def _proxy(self, target, what):
        return Setup(target.name, what, [target.url("images")], target.servers, [target.url(configs.LIMITED)])

    def nginx(self):
        return self._proxy(configs.nginx(self.rig, self.on, self.port, self.certs, ROUTES), "`proxy_pass`")

    def haproxy(self):
        return self._proxy(configs.haproxy(self.rig, self.on, self.port, self.certs, ROUTES), "one thread")

    def redis(self):
        targets, store = redis.nodes(self.rig, self.on, self.port, self.certs, ROUTES)
        return Setup("redis", f"{redis.NODES} nginx nodes, asked in turn, that count every call in one Redis (Lua, `INCR`)",
                     [target.url("images") for target in targets], [server for target in targets for server in target.servers] + [store],
                     [target.url(configs.LIMITED) for target in targets])

    def _tollgate(self, name, what, targets, rules, limits, audit):
        """What all setups of Tollgate have in common: how they are asked, and what they must prove."""
        setup = Setup(name, what, [target.url("images") for target in targets],
                      [server for target in targets for server in target.servers])
        if limits:
            setup.limited = [target.url(configs.LIMITED) for target in targets]
        if audit:
            setup.audit = [self.rig.dir / target.name / "audit.jsonl" for target in targets]
        for url in setup.urls:
            setup.proofs.append(lambda url=url: _refuses_strangers(url))
            if rules:
                setup.proofs.append(lambda url=url: _applies_policy(url))
        return setup

    def _policies(self, rules, limits):
        return {"images": calls.policy(rules, limits), configs.LIMITED: calls.EXACT if limits else calls.ALLOW_ALL}

    def _one(self, name, what, rules=False, limits=False, audit=False, grants=GRANTS_MANY):
        target = configs.tollgate(self.rig, self.on, self.port, None, self.binary, name, self._policies(rules, limits),
                                  audit, ROUTES, grants)
        return self._tollgate(name, what, [target], rules, limits, audit)

    def tollgate(self):
        return self._one("tollgate", f"{CALLERS} grants, everything allowed, audit lines thrown away", grants=CALLERS)

    def grants(self):
        return self._one("grants", f"with {GRANTS_MANY:,} grants")

    def policy(self):
        return self._one("policy", "and a policy with conditions on three arguments", rules=True)

    def limits(self):
        return self._one("limits", "and two limits", rules=True, limits=True)

    def audit(self):
        return self._one("audit", "and the audit trail in a file", rules=True, limits=True, audit=True)

    def cluster(self):
        voters = Voters(self.rig, self.on, self.port, self.binary, self._policies(True, True), ROUTES, GRANTS_MANY)
        return self._tollgate("cluster", "all of that on three voters, asked in turn", voters.targets, True, True, True)


# What a setup needs of Debian beside what all need.
NEEDS = {"nginx": ("nginx",), "haproxy": ("haproxy",), "redis": ("nginx", "lua", "lua-redis", "redis-server")}
NAMES = ("direct", "nginx", "haproxy", "redis", "tollgate", "grants", "policy", "limits", "audit", "cluster")
# Measured beside other gateways, at their rate.
BESIDE_GATEWAYS = ("direct", "nginx", "audit")
LIMITING = ("nginx", "haproxy", "redis", "limits", "audit", "cluster")
