"""Root filesystems as the kernel mounts them: by descriptor, where it is new enough for that, and by mount(2)."""

import errno
import os
from pathlib import Path

import pytest

from kestrel.linux import mounts
from kestrel.linux.mounts import open_rootfs, opened
from kestrel.linux.rootfs import Lower, Rootfs

pytestmark = pytest.mark.root


@pytest.fixture(params=["as this kernel can", "as an old one can"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, "fsconfig: Invalid argument", "lowerdir+")

    if request.param != "as this kernel can":
        monkeypatch.setattr(mounts, "_overlay_by_descriptor", refuse)


def layers(top: Path, count: int) -> tuple[Lower, ...]:
    """Make layers, the topmost first; each has a file of its own and one that all have."""
    found = []
    for index in range(count):
        layer = top / f"layer{index}"
        layer.mkdir()
        (layer / f"own{index}").write_text(str(index))
        (layer / "shared").write_text(str(index))
        found.append(Lower(path=str(layer)))
    return tuple(found)


def writable(top: Path) -> dict[str, str]:
    for name in ("upper", "work"):
        (top / name).mkdir()
    return {"upper": str(top / "upper"), "work": str(top / "work")}


def read(root: int, name: str) -> str:
    with opened(os.open(name, os.O_RDONLY, dir_fd=root)) as fd:
        return os.read(fd, 100).decode()


@pytest.mark.parametrize("count", [1, 2, 10, 20, 127, 300])
def test_a_root_may_have_many_layers(tmp_path: Path, count: int) -> None:
    plan = Rootfs(lowers=layers(tmp_path, count), **writable(tmp_path))
    before = Path("/proc/self/mountinfo").read_text()
    with opened(open_rootfs(plan)) as root:
        assert read(root, "shared") == "0"
        assert read(root, f"own{count - 1}") == str(count - 1)
        with opened(os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=root)) as fd:
            os.write(fd, b"x")
        assert Path("/proc/self/mountinfo").read_text() == before
    assert (tmp_path / "upper/new").read_text() == "x"
    assert not (tmp_path / "layer0/new").exists()


@pytest.mark.parametrize("name", ["with,comma", "with:colon", "with\\backslash", "with space", "ümlaut", "x" * 200])
def test_a_root_s_directories_may_have_any_name(tmp_path: Path, name: str) -> None:
    top = tmp_path / name
    top.mkdir()
    plan = Rootfs(lowers=layers(top, 3), **writable(top))
    with opened(open_rootfs(plan)) as root:
        assert read(root, "own2") == "2"
        os.mkdir("made", dir_fd=root)
    assert (top / "upper/made").is_dir()


@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_root_without_a_place_to_write_is_read_only(tmp_path: Path, count: int) -> None:
    with opened(open_rootfs(Rootfs(lowers=layers(tmp_path, count)))) as root:
        assert read(root, "shared") == "0"
        with pytest.raises(OSError, match="Read-only file system"):
            os.mkdir("x", dir_fd=root)


@pytest.mark.parametrize("count", [3, 50])
def test_what_overlay_refuses_is_an_error_and_leaves_nothing_open(tmp_path: Path, count: int) -> None:
    plan = Rootfs(lowers=layers(tmp_path, count), upper=str(tmp_path / "layer0"), work="/proc")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=r"\w+"):
        open_rootfs(plan)
    assert os.listdir("/proc/self/fd") == before
