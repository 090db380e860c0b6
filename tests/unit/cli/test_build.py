"""What `kestrel build` refuses before it asks anybody."""

from pathlib import Path

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
