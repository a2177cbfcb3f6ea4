"""Programs that a measurement needs: those of Debian are installed when missing, Tollgate's own are built."""

import os
import shutil
import subprocess
from pathlib import Path

from .process import Failed, say

ROOT = Path(__file__).resolve().parents[2]
ECHO_MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")
# In the order in which nginx must load them.
LUA_MODULES = (Path("/usr/lib/nginx/modules/ndk_http_module.so"), Path("/usr/lib/nginx/modules/ngx_http_lua_module.so"))
LUA_REDIS = Path("/usr/share/lua/5.1/nginx/redis.lua")
SIMDJSON = Path("/usr/include/simdjson.h")
PACKAGES = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "openssl": "openssl",
    "echo": "libnginx-mod-http-echo",
    "lua": "libnginx-mod-http-lua",
    "lua-redis": "lua-nginx-redis",
    "redis-server": "redis-server",
    "g++": "g++",
    "simdjson": "libsimdjson-dev",
    "valgrind": "valgrind",
    "perf": "linux-perf",
}
# Those that are no programs: what must be there.
FILES = {"echo": [ECHO_MODULE], "lua": LUA_MODULES, "lua-redis": [LUA_REDIS], "simdjson": [SIMDJSON]}


def present(program):
    if program in FILES:
        return all(path.exists() for path in FILES[program])
    return shutil.which(program, path=search_path()) is not None


def search_path():
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin"


def find(program):
    found = shutil.which(program, path=search_path())
    if not found:
        raise Failed(f"{program} is missing: apt-get install {PACKAGES.get(program, program)}")
    return found


def debian(programs, may_install=True):
    """Installs what is missing with apt-get (asks sudo where needed); a service that a package starts is left alone."""
    missing = sorted(PACKAGES[name] for name in programs if not present(name))
    if not missing:
        return
    if not may_install or not shutil.which("apt-get"):
        raise Failed(f"missing: {' '.join(missing)} (on Debian: apt-get install {' '.join(missing)})")
    say(f"installing {' '.join(missing)}")
    apt = (["sudo"] if os.geteuid() else []) + ["apt-get"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # The packages would start servers of their own on port 80: RUNLEVEL tells Debian's scripts not to.
    env["RUNLEVEL"] = "1"
    subprocess.run([*apt, "update"], env=env, stdout=subprocess.DEVNULL, check=False)
    done = subprocess.run([*apt, "install", "--yes", "--no-install-recommends", *missing], env=env,
                          stdout=subprocess.DEVNULL, check=False)
    still = [name for name in programs if not present(name)]
    if done.returncode or still:
        raise Failed(f"apt-get could not install {' '.join(missing)}")


def built(binary, package, given=None):
    """Path of a release binary of this workspace; builds it when no path was given and none is there."""
    if given:
        path = Path(given).resolve()
        if not path.is_file():
            raise Failed(f"{given} is no file")
        return path
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / "release" / binary
    say(f"cargo build --release -p {package}")
    done = subprocess.run(["cargo", "build", "--release", "--quiet", "-p", package], cwd=ROOT, check=False)
    if done.returncode or not path.is_file():
        raise Failed(f"`cargo build --release -p {package}` failed")
    return path
