"""What is common where limits must hold over several nodes: nginx nodes that count every call in one Redis."""

from . import calls, configs
from .install import LUA_MODULES, find

NODES = 3
# For the route that is measured for its cost: it counts as well, and never refuses.
UNREACHED = 10**12

# INCR, and an expiry for the first of a window; a node that cannot ask lets nothing through.
_ACCESS = """
            access_by_lua_block {{
                local store = require("nginx.redis"):new()
                store:set_timeout(1000)
                if not store:connect("127.0.0.1", {port}) then return ngx.exit(503) end
                ngx.update_time()
                local key = (ngx.var.http_authorization or "") .. ":" .. math.floor(ngx.now() / {seconds})
                local count = store:incr(key)
                if count == 1 then store:expire(key, {seconds} * 2) end
                if not count then return ngx.exit(503) end
                store:set_keepalive(60000, 256)
                if count > {most} then return ngx.exit(429) end
            }}"""


def nodes(rig, on, upstream_port, certs, routes):
    """(targets, Redis): the store has no persistence, which is faster, and forgets everything when it ends."""
    port = rig.port()
    store = rig.start("redis", [find("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
                      on, (port,))

    def access(route):
        most = calls.EXACT_MAX if route == configs.LIMITED else UNREACHED
        return _ACCESS.format(port=port, seconds=calls.EXACT_SECONDS, most=most)

    modules = "\n".join(f"load_module {module};" for module in LUA_MODULES)
    return [configs.nginx(rig, on, upstream_port, certs, routes, f"nginx-redis-{at}", access, modules)
            for at in range(NODES)], store
