"""The fixed upstream, and the proxies that are measured: each with one thread, kept connections, no log but Tollgate's audit."""

import getpass
import http.client
import json
import re
import subprocess

from . import calls
from .install import ECHO_MODULE, find
from .process import START_SECONDS_MAX, Failed

# More than a run can use: no connection is closed for its number of requests.
MANY = 1_000_000_000


def certificate(rig):
    """A self-signed P-256 certificate for localhost: (chain, key, both in one file)."""
    chain, key, both = rig.dir / "chain.pem", rig.dir / "key.pem", rig.dir / "both.pem"
    done = subprocess.run(
        [find("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", chain],
        capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"openssl made no certificate:\n{done.stderr}")
    both.write_text(chain.read_text() + key.read_text())
    return chain, key, both


def _nginx(rig, name, on, http, ports, modules=""):
    """One worker that logs nothing."""
    folder = rig.dir / name
    folder.mkdir()
    config = folder / "nginx.conf"
    config.write_text(f"""
{modules}
user {getpass.getuser()};
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests {MANY};
    keepalive_timeout 1h;
    client_max_body_size 16m;
    # Bodies stay in memory: a temporary file for each would be measured instead of the proxy.
    client_body_buffer_size 256k;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{http}
}}
""")
    return rig.start(name, [find("nginx"), "-p", folder, "-c", config, "-e", "stderr"], on, ports)


class Upstream:
    """nginx that answers with fixed bytes and counts: /mcp JSON, /large 64 KiB of it, /stream server-sent events."""

    def __init__(self, rig, on):
        self.port, self._status = rig.port(), rig.port()
        head, tail = calls.reply()
        large = calls.LARGE_BYTES - len(head) - len(tail)
        events = "\n".join(
            f"            echo_flush;\n            echo 'data: {event}'; echo '';" if at else
            f"            echo 'data: {event}'; echo '';" for at, event in enumerate(calls.events()))
        self.server = _nginx(rig, "upstream", on, f"""
    server {{
        listen 127.0.0.1:{self.port} backlog=4096;
        location /mcp {{ default_type application/json; return 200 '{calls.reply_of(calls.SMALL_BYTES)}'; }}
        location /large {{
            default_type application/json;
            echo -n '{head}'; echo_duplicate {large} 'A'; echo -n '{tail}';
        }}
        location /stream {{
            default_type text/event-stream;
            add_header Cache-Control no-store;
{events}
        }}
    }}
    server {{
        listen 127.0.0.1:{self._status};
        location / {{ stub_status; }}
    }}""", (self.port, self._status), f"load_module {ECHO_MODULE};")
        self._connection = http.client.HTTPConnection("127.0.0.1", self._status, timeout=5)

    def requests(self):
        """How many requests it has read so far, those for this number left out."""
        self._asked = getattr(self, "_asked", 0) + 1
        self._connection.request("GET", "/")
        text = self._connection.getresponse().read().decode()
        # "accepts handled requests", three numbers on a line of their own.
        return int(re.search(r"^ \d+ \d+ (\d+)", text, re.M)[1]) - self._asked


ROUTES = {"images": "/mcp", "large": "/large", "stream": "/stream"}
# The route on which nginx and haproxy limit as they can.
LIMITED = "limited"


class Target:
    """A proxy before the upstream: what runs, and where it answers without and with TLS."""

    def __init__(self, name, servers, plain, tls=None):
        self.name, self.servers, self.plain, self.tls = name, servers, plain, tls

    def url(self, route, tls=False):
        scheme, port = ("https", self.tls) if tls else ("http", self.plain)
        return f"{scheme}://127.0.0.1:{port}/mcp/{route}"

    def cpu_seconds(self):
        return sum(server.cpu_seconds() for server in self.servers)

    def memory_bytes(self):
        return sum(server.memory_bytes() for server in self.servers)


def _limit_req(route):
    return f"limit_req zone=exact burst={calls.EXACT_MAX - 1} nodelay; limit_req_status 429;" if route == LIMITED else ""


def nginx(rig, on, upstream_port, certs, routes=None, name="nginx", access=_limit_req, modules=""):
    """`proxy_pass` over kept connections; JSON is buffered (nginx's default, and cheaper), streams are not.

    `access` gives the directives that decide who may pass on a route.
    """
    plain, tls = rig.port(), rig.port()
    routes = routes or ROUTES
    locations = "\n".join(f"""
        location = /mcp/{route} {{
            proxy_pass http://upstream{path};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "";
            proxy_buffers 8 128k;
            proxy_buffer_size 64k;
            proxy_busy_buffers_size 128k;
            proxy_buffering {"off" if route == "stream" else "on"};
            {access(route)}
        }}""" for route, path in routes.items())
    server = _nginx(rig, name, on, f"""
    # A bucket that holds a window's calls and is refilled evenly: nginx has no windows.
    limit_req_zone $http_authorization zone=exact:1m rate={calls.EXACT_MAX // calls.EXACT_SECONDS}r/s;
    upstream upstream {{
        server 127.0.0.1:{upstream_port};
        keepalive 256;
        keepalive_requests {MANY};
        keepalive_time 1h;
    }}
    server {{
        listen 127.0.0.1:{plain} backlog=4096;
        listen 127.0.0.1:{tls} ssl backlog=4096;
        ssl_certificate {certs[0]};
        ssl_certificate_key {certs[1]};
        ssl_protocols TLSv1.2 TLSv1.3;
        {locations}
    }}""", (plain, tls), modules)
    return Target(name, [server], plain, tls)


def haproxy(rig, on, upstream_port, certs, routes=None):
    """One thread, connections to the upstream shared by all clients."""
    plain, tls = rig.port(), rig.port()
    rules = "\n".join(
        f"    http-request set-path {path} if {{ path /mcp/{name} }}" for name, path in (routes or ROUTES).items())
    limited = f"{{ path /mcp/{LIMITED} }}"
    config = rig.dir / "haproxy.cfg"
    config.write_text(f"""
global
    nbthread 1
    maxconn 4096
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend calls
    bind 127.0.0.1:{plain} backlog 4096
    bind 127.0.0.1:{tls} ssl crt {certs[2]} alpn http/1.1 backlog 4096
    # A rate over a sliding period, of what was let through: haproxy has no windows.
    http-request track-sc0 req.hdr(Authorization) table exact if {limited}
    http-request deny deny_status 429 if {limited} {{ sc_gpc0_rate(0) ge {calls.EXACT_MAX} }}
    http-request sc-inc-gpc0(0) if {limited}
{rules}
    http-request del-header Authorization
    default_backend upstream
backend upstream
    http-reuse always
    server upstream 127.0.0.1:{upstream_port} pool-max-conn 256
backend exact
    stick-table type string len 128 size 10k expire 1m store gpc0,gpc0_rate({calls.EXACT_WINDOW})
""")
    server = rig.start("haproxy", [find("haproxy"), "-db", "-f", config], on, (plain, tls))
    return Target("haproxy", [server], plain, tls)


def forward(rig, on, upstream_port, binary, name="hyper", under=(), seconds_max=START_SECONDS_MAX):
    """The floor: hyper that forwards and does nothing else (`benches/src/bin/forward.rs`), without TLS."""
    plain = rig.port()
    server = rig.start(name, [*under, binary, str(plain), str(upstream_port)], on, (plain,), seconds_max=seconds_max)
    return Target(name, [server], plain)


def tollgate_config(rig, name, upstream_url, listeners, policies, audit, routes=None, cluster=None, grants=1):
    """A configuration file of a gateway; `policies` maps a server's name to a policy document.

    The first grant is the one that calls; the others only make the table longer.
    """
    folder = rig.dir / name
    folder.mkdir()
    servers = {server: {"url": upstream_url + path} for server, path in (routes or ROUTES).items()}
    document = {
        "listeners": listeners,
        "servers": servers,
        "policies": {server: {"inline": policy} for server, policy in policies.items()},
        "grants": [{"id": grant, "token_sha256": digest, "servers": {server: server for server in servers}}
                   for grant, digest in calls.grants(grants)],
        # The audit trail cannot be turned off: without `audit` its lines go to a standard output that is thrown away.
        "audit": {"sink": {"file": {"path": str(folder / "audit.jsonl"), "keep": 1}} if audit else "stdout"},
        "admin": {"socket": str(folder / "a.sock")},
        "cluster": {"data_dir": str(folder / "data"), "name": name, **(cluster or {})},
        "runtimes": 1,
        "bounds": {"drain_delay": "0s", "drain_timeout": "1s", "calls_grant": 4096, "body_bytes": "16MiB"},
        "log": {"level": "warn"},
    }
    path = folder / "tollgate.yaml"
    # Every JSON document is YAML.
    path.write_text(json.dumps(document, indent=1))
    return path


def tollgate(rig, on, upstream_port, certs, binary, name="tollgate", policies=None, audit=True, routes=None, grants=1,
             under=(), seconds_max=START_SECONDS_MAX):
    """One gateway with one runtime; unless told otherwise all of it: policy with conditions, limits, audit to a file, metrics.

    `under` is a command that runs it, such as valgrind; it may take longer to start then.
    """
    plain, tls = rig.port(), rig.port()
    listeners = [{"address": f"127.0.0.1:{plain}"}]
    if certs:
        listeners.append({"address": f"127.0.0.1:{tls}", "tls": {"cert": str(certs[0]), "key": str(certs[1])}})
    routes = routes or ROUTES
    policies = policies or {server: calls.POLICY for server in routes}
    path = tollgate_config(rig, name, f"http://127.0.0.1:{upstream_port}", listeners, policies, audit, routes, grants=grants)
    server = rig.start(name, [*under, binary, "serve", "--config", path], on, (plain, tls) if certs else (plain,), quiet=not audit,
                       seconds_max=seconds_max)
    return Target(name, [server], plain, tls)
