"""The command line's own JSON and lines say what the standard library's say."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kestrel.cli import bare, terminal
from kestrel.cli.remote import call

VALUES = [
    None,
    True,
    -3,
    1.5,
    "plain",
    'quotes " and \\ and \n and \x01',
    "Grüße, 世界 🐦",
    [],
    {},
    {"a": [1, {"b": None}], "leer": ""},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_json_is_what_the_library_writes_and_reads(value):
    assert json.loads(bare.encode(value)) == value
    assert bare.decode(json.dumps(value).encode()) == value
    assert bare.decode(json.dumps(value, ensure_ascii=False).encode() + b"\n") == value


@pytest.mark.parametrize("text", [b"", b"{", b"nonsense", b'{"a": }'])
def test_what_is_not_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\S"):
        bare.decode(text)


def test_what_has_no_form_in_json_is_a_type_error():
    with pytest.raises(TypeError, match="Path"):
        bare.encode({"path": Path("/")})


def test_lines_end_with_the_connection_and_leave_what_follows_them():
    ours, theirs = socket_pair()
    try:
        theirs.sendall(b"first\nsecond\n\x03rest")
        lines = bare.Lines(ours)
        assert [lines.next(), lines.next()] == [b"first\n", b"second\n"]
        assert lines.buffer == b"\x03rest"
        theirs.close()
        assert lines.next() == b"\x03rest"
        assert lines.next() == b""
    finally:
        ours.close()
        theirs.close()


def test_every_forwarded_signal_has_the_name_the_library_gives_it():
    assert {number: signal.Signals(number).name for number in terminal.FORWARDED} == terminal.FORWARDED


def test_what_is_typed_most_imports_none_of_the_modules_it_does_without():
    code = "import sys, kestrel.cli.main, kestrel.cli.run, kestrel.cli.terminal, kestrel.cli.show; print(*sys.modules)"
    source = str(Path(bare.__file__).parents[2])
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", code], env={**os.environ, "PYTHONPATH": source}, capture_output=True, check=True
    )
    assert not {"json", "re", "enum", "socket", "asyncio", "typing", "dataclasses"} & set(
        loaded.stdout.decode().split()
    )


def socket_pair():
    pair = socket.socketpair(bare.UNIX, bare.STREAM)
    return tuple(bare.Socket(fileno=each.detach()) for each in pair)


def test_a_request_that_a_killed_daemon_never_read_goes_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("KESTREL_RUN", str(tmp_path))
    path = tmp_path / "kestrel.sock"
    served = threading.Thread(target=serve_after_a_death, args=(path, ready := threading.Event()))
    served.start()
    try:
        assert ready.wait(5)
        assert call("ps", {"all": True}) == ["answer"]
    finally:
        served.join(5)


def serve_after_a_death(path: Path, ready: threading.Event) -> None:
    """Close a listening socket while a connection waits in it, then listen again and answer."""
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(path))
        dying.listen()
        ready.set()
        select.select([dying], [], [], 5)  # it has connected, and nobody accepts
        time.sleep(0.05)
        path.unlink()
        living = socket.socket(socket.AF_UNIX)
        living.bind(str(path))
        living.listen()
    living.settimeout(5)
    with living, living.accept()[0] as connection:
        assert b'{"all":true}' in connection.recv(65536)
        connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"result": ["answer"]}\n')
