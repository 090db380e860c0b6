"""What `kestrel build` asks for, and what it refuses before it asks anybody."""

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kestrel.cli.main import run


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--check --verify", "--verify does not go with --check"),
        ("--outline --targets", "--targets does not go with --outline"),
        ("--context-report --check", "--context-report does not go with --check"),
        ("--targets --explain", "--explain does not go with --targets"),
        ("--trusted-registry x", "--trusted-registry goes with --check"),
        ("--outline --trusted-registry x", "--trusted-registry goes with --check"),
        ("--fix", "--fix goes with --check"),
        ("--outline --fix", "--fix goes with --check"),
    ],
)
def test_options_that_would_change_nothing_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: str, sentence: str
) -> None:
    monkeypatch.setattr("kestrel.cli.build.call", lambda *_: pytest.fail("the daemon was asked"))
    assert run(["build", "-q", *options.split(), str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.fixture
def descriptor() -> Iterator[str]:
    """A descriptor of this process with a line behind it, by the name that `<(command)` of a shell gives."""
    reading, writing = os.pipe()
    try:
        os.write(writing, b"FROM scratch\n")
        os.close(writing)
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)


@pytest.mark.parametrize("option", ["-f", "--secret"])
def test_a_descriptor_of_the_command_is_not_one_of_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptor: str, option: str
) -> None:
    asked: dict[str, Any] = {}

    def call(_: str, request: dict[str, Any]) -> dict[str, Any]:
        asked.update(request)
        return {"image_id": "sha256:0"}

    monkeypatch.setattr("kestrel.cli.build.call", call)
    word = descriptor if option == "-f" else f"id=key,src={descriptor}"
    assert run(["build", "-q", option, word, str(tmp_path)]) == 0
    found = asked["dockerfile_text"] if option == "-f" else asked["secret_values"]["key"]
    assert base64.b64decode(found) == b"FROM scratch\n"
    assert asked["secrets"] == {}
