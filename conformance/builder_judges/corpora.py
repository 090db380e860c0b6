"""Where the tables lie: a directory given by hand, or modules that Go's module proxy serves."""

import json
import os
import shutil
import subprocess
from pathlib import Path

MODULES = {
    "buildkit": "github.com/moby/buildkit@v0.32.2",
    "patternmatcher": "github.com/moby/patternmatcher@v0.6.0",
}


def locate(name: str) -> Path:
    """Return the root of a corpus. Raises SystemExit that says how to get it."""
    given = os.environ.get("KESTREL_CORPORA", "")
    if given and (Path(given) / name).is_dir():
        return Path(given) / name
    if name not in MODULES:
        raise SystemExit(f"no corpus {name}: set KESTREL_CORPORA to a directory that holds a checkout of it")
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not os.path.exists(go):
        raise SystemExit(f"no corpus {name}: set KESTREL_CORPORA to a directory that holds it, or install Go")
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULES[name]], cwd="/tmp", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"no corpus {name}: {done.stdout or done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])
