"""Registries to be judged: each in a process and a directory of its own, on a free port of the loopback address."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from kestrel.testing.instance import free_port

SERVE = """
import asyncio, sys
from pathlib import Path
from kestrel.base.db import Database
from kestrel.content import Store
from kestrel.http.server import Server, Tcp
from kestrel.registry import Registry, Settings

async def main(root, port, name, password):
    database = Database(root / "kestrel.db")
    registry = Registry(Store(root, database), database, Settings(sparse=True))
    if name:
        registry.accounts.add_user(name, password, (("conformance/**", "push,delete"),))
    async with Server(registry.handle, [Tcp(port=port)]):
        await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
"""
NOBODY = ("", "")
ACCOUNT = ("judge", "correct horse")
Served = tuple[str, tuple[str, str]]
"""Address (host:port), and the name and password to log in with."""
PATIENCE = 30.0  # seconds until a registry has to answer


@contextlib.contextmanager
def kestrel(directory: Path, login: tuple[str, str] = NOBODY) -> Iterator[Served]:
    """Our registry alone, with sparse indexes allowed, as the program tests them."""
    port = free_port()
    with _running([sys.executable, "-c", SERVE, str(directory), str(port), *login], port) as address:
        yield address, login


@contextlib.contextmanager
def kestrel_with_accounts(directory: Path) -> Iterator[Served]:
    """The same behind its token server, with one account that may do everything below `conformance/`."""
    with kestrel(directory, ACCOUNT) as served:
        yield served


@contextlib.contextmanager
def docker_registry(directory: Path) -> Iterator[Served]:
    """Debian's docker-registry."""
    port = free_port()
    settings = directory / "config.yml"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\nstorage:\n"
        f"  filesystem: {{rootdirectory: {directory}/data}}\n  delete: {{enabled: true}}\n"
    )
    with _running(["docker-registry", "serve", str(settings)], port) as address:
        yield address, NOBODY


@contextlib.contextmanager
def zot(directory: Path) -> Iterator[Served]:
    """zot, as its binary comes."""
    port = free_port()
    settings = directory / "config.json"
    document = {
        "storage": {"rootDirectory": str(directory / "data")},
        "http": {"address": "127.0.0.1", "port": str(port)},
        "log": {"level": "error"},
    }
    settings.write_text(json.dumps(document))
    with _running([_zot(), "serve", str(settings)], port) as address:
        yield address, NOBODY


SERVERS = {
    "kestrel": kestrel,
    "kestrel with accounts": kestrel_with_accounts,
    "docker-registry": docker_registry,
    "zot": zot,
}


def present(name: str) -> bool:
    """Say whether a registry's program is on this machine."""
    return name.startswith("kestrel") or shutil.which(_zot() if name == "zot" else name) is not None


def _zot() -> str:
    return os.environ.get("KESTREL_ZOT", "zot")


@contextlib.contextmanager
def _running(argv: "list[str]", port: int) -> Iterator[str]:
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(process, f"http://127.0.0.1:{port}/v2/")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", url: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            urlopen(url, timeout=5).close()
            return
        except HTTPError:
            return
        except (URLError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError(f"nothing answers at {url}")
