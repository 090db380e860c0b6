"""What sets two images apart."""

import io
import tarfile
from typing import Any

from kestrel.images import ImageService
from kestrel.images.difference import Difference
from kestrel.testing.images import tiny_image


async def diff(registry: Any, images: ImageService, old: Any, new: Any) -> Difference:
    for name, image in (("app:old", old), ("app:new", new)):
        registry.serve(name, image)
        await images.pull(name)
    return await images.diff("app:old", "app:new")


def lines(found: Difference) -> list[str]:
    return [f"{change.what} {change.path} {', '.join(change.how)}".strip() for change in found.files]


def layered(*layers: dict[str, bytes], **more: Any) -> Any:
    return tiny_image(layers=list(layers), busybox=False, **more)


def made(*members: tuple[str, dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, fields in members:
            info = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info)
    return out.getvalue()


BASE = {"etc/kept": b"kept", "etc/gone": b"gone", "dir/one": b"1", "dir/two": b"2"}


async def test_files_are_compared_as_a_container_sees_them(registry: Any, images: ImageService) -> None:
    old = layered(BASE, {"etc/kept": b"other"})
    new = layered(BASE, {"etc/.wh.gone": b"", "dir/.wh..wh..opq": b"", "dir/three": b"333"})
    found = await diff(registry, images, old, new)
    assert lines(found) == [
        "removed /dir/one",
        "added /dir/three",
        "removed /dir/two",
        "removed /etc/gone",
        "changed /etc/kept content",
    ]
    assert {change.path: change.size for change in found.files}["/dir/three"] == 3


async def test_how_an_image_came_about_makes_no_difference(registry: Any, images: ImageService) -> None:
    found = await diff(registry, images, layered({"a": b"1", "b": b"2"}), layered({"a": b"0"}, {"b": b"2", "a": b"1"}))
    assert found.files == ()


async def test_what_a_container_is_told_is_compared(registry: Any, images: ImageService) -> None:
    old, new = layered(BASE, env=("A=1", "B=2"), cmd=("x",)), layered(BASE, env=("A=1", "B=3"), cmd=("y",))
    found = await diff(registry, images, old, new)
    assert found.configuration == ("Cmd ['x'] became ['y']", "Env - B=2", "Env + B=3")
    assert found.files == ()


async def test_modes_owners_links_and_kinds_are_named(registry: Any, images: ImageService) -> None:
    link = {"type": tarfile.SYMTYPE, "linkname": "one"}
    old = made(("f", {"mode": 0o644}), ("l", link), ("d", {"type": tarfile.DIRTYPE}), ("d/in", {}), ("h", {}))
    hard = {"type": tarfile.LNKTYPE, "linkname": "f"}
    new = made(("f", {"mode": 0o4755, "uid": 5}), ("l", {**link, "linkname": "two"}), ("d", {}), ("h", hard))
    found = await diff(
        registry, images, tiny_image(layers=[old], busybox=False), tiny_image(layers=[new], busybox=False)
    )
    assert [line for line in lines(found) if not line.startswith("changed /d ")] == [
        "removed /d/in",
        "changed /f mode 0644 became 4755, owner 0:0 became 5:0",
        "changed /h mode 0644 became 4755, owner 0:0 became 5:0",
        "changed /l one became two",
    ]
