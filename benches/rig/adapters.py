"""Other gateways: one TOML file each in `adapters/`, which tells how to start it. README.md there has the format."""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from .install import ROOT, search_path
from .process import Failed, say
from .setups import Setup

FOLDER = Path(__file__).parent / "adapters"
NEEDED = {"name", "what", "program", "start", "url"}
KNOWN = NEEDED | {"pip", "npm", "version", "files", "env", "ready", "token", "protocol", "tool", "limited", "counted"}
START_SECONDS_MAX = 60
INSTALL_SECONDS_MAX = 900


def read(folders=()):
    """Every adapter, by name."""
    found = {}
    for folder in [FOLDER, *map(Path, folders)]:
        if not folder.is_dir():
            raise Failed(f"{folder} is no folder")
        for path in sorted(folder.glob("*.toml")):
            try:
                adapter = tomllib.loads(path.read_text())
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise Failed(f"{path}: {error}") from error
            if wrong := (NEEDED - adapter.keys()) | (adapter.keys() - KNOWN):
                raise Failed(f"{path}: missing or unknown: {', '.join(sorted(wrong))}")
            found[adapter["name"]] = adapter
    return found


def _home(adapter):
    """Where `install` puts it: beside other build products, out of the way of the system."""
    return Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "gateways" / adapter["name"]


def _paths(adapter):
    home = _home(adapter)
    return f"{home / 'bin'}:{home / 'node_modules' / '.bin'}:{search_path()}"


def installed(adapter):
    return shutil.which(adapter["program"].replace("{home}", str(_home(adapter))), path=_paths(adapter))


def how(adapter):
    """How a person gets it."""
    if "pip" in adapter:
        return f"pip install {adapter['pip']}"
    if "npm" in adapter:
        return f"npm install --global {adapter['npm']}"
    return f"{adapter['program']} must be in PATH"


def install(adapter):
    """Installs its package into a folder of its own."""
    home = _home(adapter)
    if "pip" in adapter:
        steps = [[sys.executable, "-m", "venv", home],
                 [home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", adapter["pip"]]]
    elif "npm" in adapter:
        steps = [["npm", "install", "--no-audit", "--no-fund", "--prefix", home, adapter["npm"]]]
    else:
        raise Failed(f"{adapter['name']} can only be installed by hand: {how(adapter)}")
    say(f"installing {adapter['name']} into {home}")
    home.mkdir(parents=True, exist_ok=True)
    for step in steps:
        try:
            done = subprocess.run([str(word) for word in step], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=INSTALL_SECONDS_MAX, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{adapter['name']} was not installed: {error}") from error
        if done.returncode:
            raise Failed(f"{adapter['name']} was not installed:\n{(done.stdout + done.stderr)[-1500:]}")


class _Filled:
    """An adapter's texts with the places filled in."""

    def __init__(self, known):
        self.known = known

    def __call__(self, text):
        # Plain replacement: configurations are full of braces of their own.
        for key, value in self.known.items():
            text = text.replace("{" + key + "}", str(value))
        return text

    def all(self, texts):
        return [self(text) for text in texts]


def version(adapter):
    """The command that tells its version."""
    program = installed(adapter)
    return _Filled({"program": program, "bin": Path(program).parent, "home": _home(adapter)}).all(
        adapter.get("version", ["{program}", "--version"]))


def start(adapter, rig, on, upstream_url, loadtest):
    """Starts it and says where it answers."""
    port, program = rig.port(), installed(adapter)
    folder = rig.dir / "files"
    folder.mkdir()
    filled = _Filled({"program": program, "bin": Path(program).parent, "home": _home(adapter), "port": port,
                      "upstream": upstream_url, "dir": folder, "loadtest": loadtest})
    for name, text in adapter.get("files", {}).items():
        (folder / Path(name).name).write_text(filled(text))
    # Programs of its own installation come first, as after activating it.
    env = {"PATH": _paths(adapter), **{name: filled(value) for name, value in adapter.get("env", {}).items()}}
    server = rig.start(adapter["name"], filled.all(adapter["start"]), on, (port,), env=env, cwd=folder,
                       seconds_max=START_SECONDS_MAX)
    if "ready" in adapter:
        _ready(filled.all(adapter["ready"]), {**os.environ, **env}, server)
    token = adapter.get("token")
    return Setup(
        adapter["name"], adapter["what"], [filled(adapter["url"])], [server],
        limited=filled.all(adapter.get("limited", [])), callers=[("bench", token)] if token else [],
        protocol=adapter.get("protocol", "auto"), tool=adapter.get("tool", Setup.tool), counted=adapter.get("counted", True))


def _ready(command, env, server):
    """Repeats a command until it succeeds: some gateways take connections before they serve."""
    until = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env,
                                  timeout=START_SECONDS_MAX, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{server.name} is not ready: {error}") from error
        if not done.returncode:
            return
        if not server.alive() or time.monotonic() > until:
            raise Failed(f"{server.name} is not ready:\n{(done.stdout + done.stderr)[-1500:]}")
        time.sleep(0.5)


def is_upstream(command):
    """Whether a process is the server that a gateway started, not a part of the gateway."""
    return [Path(command[0]).name, *command[1:2]] == ["tollgate-loadtest", "upstream"] if command else False
