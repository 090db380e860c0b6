"""`--context-report`: what is read of the context, what is not, and what an ignore file would keep out."""

import os
from pathlib import Path
from typing import Any

import pytest

from kestrel.build import BuildRequest
from kestrel.build.report import ContextReport
from kestrel.testing.builds import World

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    await made.busybox()
    yield made
    made.database.close()


async def look(world: World, dockerfile: str, **options: Any) -> ContextReport:
    world.file("Dockerfile", dockerfile)
    return await world.builder.context_report(BuildRequest(context=world.context, **options))


async def test_only_what_steps_of_the_target_name_is_read(world: World) -> None:
    world.write(src__a="a" * 100, src__b="b" * 10, assets__big="c" * 1000, readme="d")
    text = (
        "FROM busybox AS x\nCOPY assets /\nFROM busybox\nCOPY src/a /\nRUN --mount=type=bind,source=src,target=/s id\n"
    )
    found = await look(world, text)
    assert [(each.title.split()[0], each.files, each.size) for each in found.reads] == [
        ("COPY", 1, 100),
        ("RUN", 2, 110),
    ]
    assert (found.used.files, found.used.size) == (2, 110)
    assert (found.context.files, found.context.size) == (5, 1111 + len(text))
    assert [part.path for part in found.largest] == ["src/a", "src/b"]
    assert [(part.path, part.files, part.size) for part in found.unused] == [("assets/", 1, 1000), ("readme", 1, 1)]
    assert world.executor.count == 0


async def test_what_the_ignore_file_hides_is_counted(world: World) -> None:
    world.write(_dot_dockerignore="*.bin\n", kept="k")
    world.file("data.bin", "x" * 500)
    found = await look(world, "FROM scratch\nCOPY . /\n")
    assert found.ignore_file == ".dockerignore"
    assert (found.hidden.files, found.hidden.size) == (1, 500)
    assert found.unused == ()


async def test_lines_for_the_ignore_file_say_what_they_save(world: World) -> None:
    for name, size in ((".git/objects/x", 900), ("web/node_modules/m/i.js", 300), ("a.pyc", 20), ("b/c.pyc", 30)):
        world.file(name, "x" * size)
    world.file(".env", "KEY=value")
    found = await look(world, "FROM scratch\nCOPY . /\n")
    assert [(part.path, part.files, part.size) for part in found.suggested] == [
        ("**/.git", 1, 900),
        ("**/node_modules", 1, 300),
        ("**/*.pyc", 2, 50),
        ("**/.env", 1, 9),
    ]
    world.write(_dot_dockerignore="".join(f"{part.path}\n" for part in found.suggested))
    after = await look(world, "FROM scratch\nCOPY . /\n")
    assert after.suggested == ()
    assert (after.hidden.files, after.hidden.size) == (5, 1259)


async def test_what_a_step_names_and_is_not_there_is_said(world: World) -> None:
    found = await look(world, "FROM scratch\nCOPY nothing /\n")
    assert found.reads[0].missing.startswith("`nothing` is not in the build context")
