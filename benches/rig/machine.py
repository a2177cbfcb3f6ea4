"""What the figures were measured on and with."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path


def _first(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter((done.stdout + done.stderr).strip().splitlines()), None)


def describe(versions):
    """Processor, kernel, load, the versions of the programs, the exact command."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "versions": {name: _first(command) for name, command in versions.items()},
        "command": " ".join(sys.argv),
    }
