"""The registry under load: blobs by ten clients beside docker-registry and zot, and what becomes of a very large one.

The rows with a hundred thousand tags and a million blobs serve the registry alone, in a process of its own; their
contents are made up, written past it.
"""

import hashlib
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks.bed import REGISTRY_PORT, Bed
from benchmarks.measure import BEST_RATE, Row

CLIENTS = 10
MB = 1_000_000
SIZES = {1: 60, 10: 20, 100: 10}
"""Megabytes of a blob, and how many are pushed and pulled in a round."""
ALONE_PORT = 25400
PIECE = 1 << 20

SERVE = """
import asyncio, sys, threading, time
from pathlib import Path
from kestrel.base.db import Database
from kestrel.content import Store, sweeping
from kestrel.http.server import Server, Tcp
from kestrel.registry import Registry

async def main(root, port):
    database = Database(root / "kestrel.db")
    content = Store(root, database)
    registry = Registry(content, database)
    async with Server(registry.handle, [Tcp(port=port)]):
        print("ready", flush=True)
        while word := await asyncio.to_thread(sys.stdin.readline):
            began = time.perf_counter()
            verdicts = sweeping(content, [registry.repositories])
            removed = await asyncio.to_thread(lambda: sum(verdict.removed for verdict in verdicts))
            print(removed, time.perf_counter() - began, flush=True)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def blobs(bed: Bed) -> Iterator[Row]:
    """Push and pull of blobs of three sizes by ten clients at once."""
    assert bed.kestrel
    hosts = {"kestrel": ("127.0.0.1", REGISTRY_PORT), "docker-registry": _host(bed.registry)}
    if bed.zot:
        hosts["zot"] = _host(bed.zot)
    for size, count in SIZES.items():
        pushes = Row(f"push of {size} MB blobs by {CLIENTS} clients", BEST_RATE, "MB/s")
        pulls = Row(f"pull of {size} MB blobs by {CLIENTS} clients", BEST_RATE, "MB/s")
        for _ in range(bed.count(5)):
            files = [_random_file(bed.directory / f"blob{number}", size * MB) for number in range(count)]
            for name, host in hosts.items():
                pushes.add(name, _by_many(partial(_push, host), files) * size * MB)
            for name, host in hosts.items():
                pulls.add(name, _by_many(partial(_pull, host), files) * size * MB)
        yield pushes
        yield pulls


def tags(bed: Bed) -> Iterator[Row]:
    """A hundred thousand tags, a thousand a page, from the first to the last."""
    root = bed.place("tags")
    count = 10_000 if bed.quick else 100_000
    with _alone(root):
        pass
    with sqlite3.connect(root / "kestrel.db") as database:
        digest = "sha256:" + "0" * 64
        database.execute("INSERT INTO registry_repository VALUES (1, 'many')")
        database.execute("INSERT INTO registry_manifest VALUES (1, ?, 'x/y', 2, '', '', '{}', 0)", (digest,))
        rows = ((1, f"v{number}", digest, 0) for number in range(count))
        database.executemany("INSERT INTO registry_tag VALUES (?, ?, ?, ?)", rows)
    row = Row(f"a page of 1,000 of {count:,} tags", 300)
    with _alone(root):
        path: str | None = "/v2/many/tags/list?n=1000"
        seen = 0
        while path:
            began = time.perf_counter()
            with urlopen(f"http://127.0.0.1:{ALONE_PORT}{path}") as answer:
                seen += len(json.load(answer)["tags"])
                link = answer.headers.get("Link")
            row.add("kestrel", time.perf_counter() - began)
            path = link[1:].partition(">")[0] if link else None
    assert seen == count
    yield row


def million(bed: Bed) -> Iterator[Row]:
    """A million small blobs: how long a start takes, and a collection of nine tenths while pushes go on."""
    root = bed.place("million")
    count = 50_000 if bed.quick else 1_000_000
    with _alone(root):
        pass
    _fill(root, count)
    start = Row(f"start of the registry alone with {count:,} blobs", 1, "s")
    for _ in range(3):
        began = time.perf_counter()
        with _alone(root):
            start.add("kestrel", time.perf_counter() - began)
    yield start
    collection = Row(f"collection of 90 % of {count:,} blobs while pushes go on", None, "s")
    with _alone(root) as process:
        stop, pushed, failed = threading.Event(), [], []

        def push() -> None:
            while not stop.is_set():
                data = random.randbytes(2000)
                digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
                request = Request(
                    f"http://127.0.0.1:{ALONE_PORT}/v2/live/blobs/uploads/?digest={digest}", data=data, method="POST"
                )
                try:
                    urlopen(request).close()
                    pushed.append(digest)
                except OSError as error:
                    failed.append(str(error))

        pusher = threading.Thread(target=push)
        pusher.start()
        assert process.stdin
        assert process.stdout
        process.stdin.write("gc\n")
        process.stdin.flush()
        removed, took = process.stdout.readline().split()
        stop.set()
        pusher.join()
        lost = [d for d in pushed if not (root / "blobs/sha256" / d.partition(":")[2]).exists()]
    collection.add("kestrel", float(took))
    collection.note = f"{removed} removed; {len(pushed)} pushes meanwhile, {len(failed)} failed, {len(lost)} lost"
    yield collection


def _fill(root: Path, count: int) -> None:
    """Write blobs past the registry; a tenth of them are shown by a repository, as if pushed just now."""
    directory = root / "blobs/sha256"
    rows = []
    for number in range(count):
        data = b"%d" % number
        name = hashlib.sha256(data).hexdigest()
        fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT, 0o444)
        os.write(fd, data)
        os.close(fd)
        rows.append((1, f"sha256:{name}", time.time() if number % 10 == 0 else 0.0))
    with sqlite3.connect(root / "kestrel.db") as database:
        database.execute("INSERT INTO registry_repository VALUES (1, 'many')")
        database.executemany("INSERT INTO registry_blob VALUES (?, ?, ?)", rows)


@contextmanager
def _alone(root: Path) -> "Iterator[subprocess.Popen[str]]":
    argv = [sys.executable, "-c", SERVE, str(root), str(ALONE_PORT)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the registry did not start")
        yield process
    finally:
        process.terminate()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _host(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _random_file(path: Path, size: int) -> tuple[Path, str]:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            data = random.randbytes(min(PIECE, size - start))
            digest.update(data)
            file.write(data)
    return path, f"sha256:{digest.hexdigest()}"


def _by_many(once: "Callable[[tuple[Path, str]], None]", files: "list[tuple[Path, str]]") -> float:
    """Return how many a second are done by all clients together."""
    os.sync()
    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.perf_counter()
        list(pool.map(once, files))
        return len(files) / (time.perf_counter() - began)


def _push(host: tuple[str, int], blob: "tuple[Path, str]") -> None:
    path, digest = blob
    with socket.create_connection(host) as connection, path.open("rb") as file:
        head = _ask(connection, host, "POST /v2/bench/blobs/uploads/", "Content-Length: 0")
        where = next(
            line.partition(":")[2].strip() for line in head.splitlines() if line.lower().startswith("location:")
        )
        where = where.partition(f"{host[0]}:{host[1]}")[2] or where
        mark = "&" if "?" in where else "?"
        size = path.stat().st_size
        length = f"Content-Length: {size}\r\nContent-Type: application/octet-stream"
        _send(connection, host, f"PUT {where}{mark}digest={digest}", length)
        connection.sendfile(file)
        _status(_head(connection)[0], 201)


def _pull(host: tuple[str, int], blob: "tuple[Path, str]") -> None:
    path, digest = blob
    size = path.stat().st_size
    with socket.create_connection(host) as connection:
        _send(connection, host, f"GET /v2/bench/blobs/{digest}", "Accept: */*")
        head, rest = _head(connection)
        _status(head, 200)
        left, buffer = size - len(rest), bytearray(PIECE)
        while left:
            count = connection.recv_into(buffer, min(PIECE, left))
            if not count:
                raise RuntimeError(f"{host} ended a blob {left} bytes early")
            left -= count


def _ask(connection: socket.socket, host: tuple[str, int], line: str, header: str) -> str:
    _send(connection, host, line, header)
    head, _ = _head(connection)
    _status(head, 202)
    return head


def _send(connection: socket.socket, host: tuple[str, int], line: str, header: str) -> None:
    connection.sendall(f"{line} HTTP/1.1\r\nHost: {host[0]}:{host[1]}\r\n{header}\r\n\r\n".encode())


def _head(connection: socket.socket) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            raise RuntimeError(f"no answer: {data[:200]!r}")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.decode(), rest


def _status(head: str, wanted: int) -> None:
    if int(head.split()[1]) != wanted:
        raise RuntimeError(f"wanted {wanted}, got {head.splitlines()[0]}")
