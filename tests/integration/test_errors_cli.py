"""Bad input through the command line: each answer is a sentence that names the thing, with what to do about it."""

import http.server
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from kestrel.testing import broken
from kestrel.testing.instance import Answer, Instance, free_port

pytestmark = pytest.mark.root


def says(answer: Answer, *words: str) -> None:
    """Check that the talk has all words, that there is no data, and no traceback."""
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert answer.err.startswith("error: ")
    for word in words:
        assert word in answer.err, f"{word!r} is not in {answer.err!r}"


# Words that are not known


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rnu",), ("unknown command 'rnu'", "kestrel run")),
        (("run", "--nmae", "x", "box"), ("unknown flag --nmae", "--name")),
        (("run",), ("needs IMAGE", "usage:")),
        (("run", "-p"), ("-p needs a value",)),
        (("stop", "-t", "soon", "x"), ("takes a number",)),
        (("image", "bootstarp"), ("bootstrap",)),
        (("tag", "one"), ("needs TARGET",)),
    ],
)
def test_unknown_words_are_named_with_the_nearest(
    platform: Instance, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    answer = platform(*arguments, code=2)
    says(answer, *words)


def test_a_container_that_does_not_exist_is_named_with_the_nearest(platform: Instance) -> None:
    platform("run", "--name", "webserver", "box", "true")
    for verb in ("logs", "stop", "start", "kill", "wait", "rm"):
        says(platform(verb, "webservre", code=1), "webservre", "webserver")


def test_an_image_that_does_not_exist_is_named_with_the_nearest(platform: Instance) -> None:
    says(platform("rmi", "bxo", code=1), "bxo", "box")
    says(platform("tag", "bxo", "y", code=1), "bxo", "box")
    says(platform("images", "bxo", code=1), "bxo")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-p", "99999:80"), ("99999:80", "[IP:][HOST:]PORT")),
        (("-v", "nonsense"), ("nonsense", "SOURCE:TARGET")),
        (("-v", "/absent/here:/x"), ("/absent/here",)),
        (("-m", "lots"), ("lots",)),
        (("--network", "brigde"), ("brigde", "bridge")),
        (("--pull", "sometimes"), ("sometimes", "always")),
        (("--security-opt", "x=y"), ("x=y",)),
        (("-u", "nobdoy"), ("unable to find user nobdoy",)),
        (("-u", "0:nogroup"), ("unable to find group nogroup",)),
        (("--cap-add", "SYS_ADMNI"), ("SYS_ADMNI", "SYS_ADMIN")),
        (("--name", "a b"), ("a b",)),
        (("--stop-signal", "NOPE"), ("NOPE",)),
        (("--entrypoint", ""), ("no command",)),
    ],
)
def test_what_run_cannot_do_is_125_and_a_sentence(
    platform: Instance, flags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    says(platform("run", "--rm", *flags, "box", code=125), *words)
    assert platform("ps", "-a", "-q").out == ""


def test_a_name_that_is_taken_says_by_whom_and_how_to_free_it(platform: Instance) -> None:
    platform("run", "--name", "taken", "box", "true")
    says(platform("run", "--name", "taken", "box", code=125), "'taken' is in use", "kestrel rm taken")


# Programs that cannot run


@pytest.mark.parametrize(("command", "code", "words"), broken.CANNOT_RUN)
def test_a_program_that_cannot_run_says_why(
    platform: Instance, odd: str, command: str, code: int, words: tuple[str, ...]
) -> None:
    says(platform("run", "--rm", odd, command, code=code), *words)


@pytest.fixture(scope="session")
def odd(shared: Instance) -> str:
    """An image with programs that cannot run."""
    context = broken.make(shared.base / "odd")
    (context / "Dockerfile").write_text("FROM box\nCOPY x /x\n")
    shared("build", "-q", "-t", "odd", str(context))
    return "odd"


def test_a_place_or_a_person_that_is_not_there_is_named(platform: Instance) -> None:
    says(platform("run", "--rm", "-w", "/etc/passwd", "box", "true", code=125), "'/etc/passwd'", "not a directory")
    says(platform("run", "--rm", "-u", "nobody9", "box", "true", code=125), "unable to find user nobody9", "Dockerfile")
    says(platform("run", "--rm", "-u", "alice:crew", "box", "true", code=125), "unable to find group crew")


def test_what_was_wrong_is_kept_with_its_remedy(platform: Instance, odd: str) -> None:
    platform("run", "--name", "crlf", odd, "/x/crlf", code=127)
    found = platform.inspect("crlf")
    assert (found["state"], found["exit_code"], found["reason"]) == ("exited", 128, "ContainerCannotRun")
    assert "ends with CRLF" in found["message"]
    assert "dos2unix" in found["message"]


# Ports


def test_a_port_that_a_container_has_names_the_port_and_the_owner(platform: Instance) -> None:
    port = str(free_port())
    platform("run", "-d", "--name", "first", "-p", f"{port}:80", "box", "sleep", "60")
    says(platform("run", "--rm", "-p", f"{port}:80", "box", "true", code=125), port, "first")


def test_a_port_that_another_program_has_is_named(platform: Instance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        says(platform("run", "--rm", "-p", f"127.0.0.1:{port}:80", "box", "true", code=125), port)


# Builds


def test_a_dockerfile_error_shows_file_line_and_the_nearest_word(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\n\nCOYP a b\n")
    says(platform("build", str(tmp_path), code=None), "Dockerfile:3", "COYP", "COPY")


def test_a_copy_of_something_absent_names_it_and_the_context(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nCOPY absent.txt /\n")
    answer = platform("build", str(tmp_path), code=None)
    assert answer.code != 0
    assert "Dockerfile:2" in answer.err
    assert "absent.txt" in answer.err
    assert "build context" in answer.err


def test_a_step_that_fails_says_its_code_and_its_output(platform: Instance, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM box\nRUN echo reason >&2; exit 3\n")
    answer = platform("build", str(tmp_path), code=None)
    assert answer.code != 0
    assert "reason" in answer.err
    assert "3" in answer.err
    assert "Dockerfile:2" in answer.err


def test_no_dockerfile_and_no_context_are_sentences(platform: Instance, tmp_path: Path) -> None:
    says(platform("build", str(tmp_path), code=None), "Dockerfile", str(tmp_path))
    says(platform("build", str(tmp_path / "absent"), code=None), "absent", "not a directory")


# Registries


def test_an_unreachable_registry_is_named_with_the_cause(platform: Instance) -> None:
    port = free_port()
    answer = platform("pull", f"localhost:{port}/x", code=1)
    assert f"localhost:{port}" in answer.err
    assert "refused" in answer.err.lower()
    answer = platform("run", "--rm", f"localhost:{port}/x", code=125)
    assert f"localhost:{port}" in answer.err
    platform("tag", "box", f"localhost:{port}/x:1")
    assert f"localhost:{port}" in platform("push", f"localhost:{port}/x:1", code=1).err
    platform("rmi", f"localhost:{port}/x:1")


def test_an_image_that_a_registry_does_not_have_is_named(platform: Instance) -> None:
    assert "absent" in platform("pull", f"{platform.registry}/absent:1", code=1).err


@pytest.fixture
def hostile() -> Iterator[Callable[[bytes, bytes], str]]:
    """A registry that serves one image whose layer is other bytes than its digest says."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def serve(promised: bytes, sent: bytes) -> str:
        config = json.dumps(
            {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [_digest(promised)]}}
        ).encode()
        kind = "application/vnd.oci.image."
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": kind + "manifest.v1+json",
                "config": {"mediaType": kind + "config.v1+json", "digest": _digest(config), "size": len(config)},
                "layers": [{"mediaType": kind + "layer.v1.tar", "digest": _digest(promised), "size": len(promised)}],
            }
        ).encode()
        answers = {
            "/v2/": (b"{}", "application/json"),
            "/v2/x/manifests/1": (manifest, kind + "manifest.v1+json"),
            f"/v2/x/manifests/{_digest(manifest)}": (manifest, kind + "manifest.v1+json"),
            f"/v2/x/blobs/{_digest(config)}": (config, "application/octet-stream"),
            f"/v2/x/blobs/{_digest(promised)}": (sent, "application/octet-stream"),
        }

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data, content_type = answers.get(self.path, (b"", ""))
                self.send_response(200 if content_type else 404)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_HEAD = do_GET  # noqa: N815 - the base class's name

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"localhost:{server.server_address[1]}/x:1"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def _digest(data: bytes) -> str:
    return "sha256:" + sha256(data).hexdigest()


def test_a_wrong_digest_is_refused_and_nothing_of_it_is_kept(
    platform: Instance, hostile: Callable[[bytes, bytes], str]
) -> None:
    name = hostile(b"\0" * 10240, b"\1" * 10240)
    answer = platform("pull", name, code=1)
    assert _digest(b"\0" * 10240)[:19] in answer.err
    platform("images", name, code=1)
    for wrong in (b"\1" * 10240, b"\0" * 10240):
        digest = _digest(wrong).partition(":")[2]
        assert not list((platform.root / "blobs").rglob(digest))


# The machine


def test_a_daemon_that_cannot_start_says_why(platform: Instance) -> None:
    with Instance.make() as other, socket.create_server(("127.0.0.1", other.kubernetes_port)):
        answer = other("up", code=1)
        assert str(other.kubernetes_port) in answer.err
        assert "in use" in answer.err
        assert "Traceback" not in answer.err
        assert "KESTREL_KUBERNETES_PORT" in answer.err
        left = [t for t in other.traces(files=False) if not t.startswith(("link", "nft", "cgroup"))]
        assert left == []


def test_a_wrong_setting_is_named(platform: Instance) -> None:
    with Instance.make() as other:
        assert "KESTREL_REGISTRY_PORT" in other("up", code=1, env={"KESTREL_REGISTRY_PORT": "x"}).err
        assert "KESTREL_NAME" in other("up", code=1, env={"KESTREL_NAME": "Much-Too-Long"}).err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "ktest", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_said_and_nothing_is_corrupted(small_disk: Path, tmp_path: Path) -> None:
    with Instance.make(root=small_disk) as kestrel:
        kestrel("up")
        kestrel.build(
            "box",
            'FROM scratch\nCOPY busybox /bin/busybox\nCMD ["/bin/busybox"]\n',
            {"busybox": Path("/bin/busybox").read_bytes()},
        )
        big = tmp_path / "big"
        big.mkdir()
        (big / "Dockerfile").write_text("FROM box\nCOPY big /\n")
        (big / "big").write_bytes(b"\1" * (30 << 20))
        answer = kestrel("build", "-t", "big", str(big), code=None)
        assert answer.code != 0
        assert f"no space left on the disk that holds {small_disk}" in answer.err
        assert "kestrel prune" in answer.err
        assert "Traceback" not in answer.err
        assert kestrel("run", "--rm", "box", "busybox", "echo", "fine").out == "fine\n"
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(65536))
        answer = kestrel("run", "--name", "late", "box", "busybox", "echo", "x", code=None)
        assert answer.code in (0, 125)
        assert answer.code == 0 or "no space left on the disk" in answer.err
        kestrel("down")
        answer = kestrel("up", code=None)
        assert answer.code == 0 or "no space left on the disk" in answer.err
        filler.unlink()
        kestrel("rm", "-f", "late", code=None)
        assert kestrel("run", "--rm", "box", "busybox", "echo", "fine").out == "fine\n"
        kestrel("down")
        kestrel("up")
        assert kestrel("run", "--rm", "box", "busybox", "echo", "fine").out == "fine\n"
        kestrel("down", "--all")


def test_names_of_files_that_are_no_text_are_shown_and_copied(platform: Instance, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/odd\xff"
    with open(odd, "w") as file:
        file.write("1")
    (tmp_path / "Dockerfile").write_text("FROM box\nCOPY odd* /odd/\nRUN cat /odd/odd*\n")
    platform("build", str(tmp_path))
    with open(odd, "w") as file:
        file.write("2")
    answer = platform("build", "--explain", str(tmp_path))
    assert "1 file changed (odd\N{REPLACEMENT CHARACTER})" in answer.err
    (tmp_path / "Dockerfile").write_text("FROM box\nCOPY odf /\n")
    says(
        platform("build", "-q", str(tmp_path), code=2),
        "`odf` is not in the build context",
        "odd\N{REPLACEMENT CHARACTER}",
    )
    (tmp_path / "Dockerfile").write_bytes(b"FROM box\nRUN echo \xff\n")
    says(
        platform("build", "-q", str(tmp_path), code=2), "RUN holds the byte 0xff, which is not UTF-8", "Dockerfile:2:10"
    )


@pytest.mark.parametrize("number", [3, 126, 127])
def test_a_build_whose_command_fails_ends_with_1_whatever_the_command_s_code(
    platform: Instance, tmp_path: Path, number: int
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM box\nRUN exit {number}\n")
    assert f"failed with exit code {number}" in platform("build", str(tmp_path), code=1).err
