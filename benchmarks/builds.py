"""Builds from the shell: nothing changed, one file changed, a large context, stages side by side.

Peers: BuildKit as it is inside Debian's dockerd (`DOCKER_BUILDKIT=1`), the classic builder of the same dockerd, podman,
and a buildkitd of any version where one is on the PATH.
"""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.bed import Bed
from benchmarks.measure import BEST_PEER, Row, command, rounds

Build = Callable[..., float]
CONTEXT_FILES = 10_000
HEAD = "buildkitd"
PAUSE = 0.1


def rebuild(bed: Bed) -> Iterator[Row]:
    """A small program of a few steps, built before: again, and again with one file changed in the last COPY."""
    context = bed.place("small")
    (context / "requirements.txt").write_text("nothing\n")
    (context / "src").mkdir()
    for number in range(20):
        (context / "src" / f"module{number}.py").write_text(f"number = {number}\n")
    (context / "Dockerfile").write_text(
        f"FROM {bed.own_image()}\nWORKDIR /app\nCOPY requirements.txt .\nRUN cp requirements.txt installed.txt\n"
        'COPY . .\nENV NAME=value\nCMD ["true"]\n'
    )
    builders = _builders(bed)
    unchanged = {name: _of(build, context) for name, build in builders.items()}
    row = Row("rebuild, nothing changed, from the shell", 45.0)
    yield rounds(row, unchanged, bed.count(15), warmup=2, pause=PAUSE)
    changed = {name: _after_a_change(build, context, context / "src/module7.py") for name, build in builders.items()}
    row = Row("rebuild after one file changed in the last COPY", 60.0)
    yield rounds(row, changed, bed.count(15), warmup=2, pause=PAUSE)


def context(bed: Bed) -> Iterator[Row]:
    """A context of 10,000 files: never seen before, unchanged, one file changed."""
    place = bed.place("context")
    (place / "Dockerfile").write_text("FROM scratch\nCOPY . /app\n")
    _fill(place)
    builders = _builders(bed)

    def anew(build: Build) -> Callable[[], float]:
        def once() -> float:
            _fill(place)
            return build(place)

        return once

    count = bed.count(5)
    row = Row(f"context of {CONTEXT_FILES:,} files (40 MB), new to the builder", 1.4, "s")
    yield rounds(row, {name: anew(build) for name, build in builders.items()}, count, warmup=0, pause=PAUSE)
    row = Row("the same, unchanged", 130.0)
    yield rounds(row, {name: _of(build, place) for name, build in builders.items()}, count, pause=PAUSE)
    row = Row("the same, one file changed", 350.0)
    changed = {name: _after_a_change(build, place, place / "d7/f7") for name, build in builders.items()}
    yield rounds(row, changed, count, pause=PAUSE)


def stages(bed: Bed) -> Iterator[Row]:
    """Four stages that need nothing of each other, a second each."""
    place = bed.place("stages")
    names = "abcd"
    image = bed.own_image()
    lines = [f"FROM {image} AS {name}\nRUN sleep 1 && echo {name} > /{name}" for name in names]
    copies = "\n".join(f"COPY --from={name} /{name} /" for name in names)
    (place / "Dockerfile").write_text("\n".join(lines) + f"\nFROM scratch\n{copies}\n")
    programs = {name: _of(build, place, "--no-cache") for name, build in _builders(bed).items()}
    yield rounds(Row("four independent stages of one second", 1.1, "s"), programs, bed.count(4), pause=PAUSE)


def export(bed: Bed) -> Iterator[Row]:
    """An image of 10,000 files, built before, as an archive: OCI's layout, and docker's."""
    place = bed.place("export")
    (place / "Dockerfile").write_text("FROM scratch\nCOPY . /app\n")
    _fill(place)
    for build in _builders(bed).values():
        build(place)
    target = bed.place("archives") / "image.tar"
    for form in ("oci", "docker"):
        save = f"--format={form}-archive"
        programs = {
            "kestrel": lambda form=form: command(
                [str(bed.kestrel), "build", "--quiet", f"--output=type={form},dest={target}", str(place)]
            ),
            "podman": lambda save=save: command(
                ["sh", "-c", 'rm -f "$0"; exec "$@"', str(target), *bed.podman, "save", "--quiet", save,
                 f"--output={target}", "bench-built"]
            ),
        }  # fmt: skip
        if form == "docker":
            programs["docker"] = lambda: command([*bed.docker, "save", f"--output={target}", "bench-built"])
        if bed.buildkit:
            programs[HEAD] = lambda form=form: _buildctl(bed, f"type={form},name=bench-built,dest={target}")(place)
        yield rounds(Row(f"export of 10,000 files (40 MB) as {form} archive", BEST_PEER), programs, bed.count(5))


def _buildctl(bed: Bed, output: str) -> Build:
    words = [*bed.buildkit, "build", "--progress=plain", "--frontend=dockerfile.v0", f"--output={output}"]

    def build(place: Path, *options: str) -> float:
        return command([*words, *options, f"--local=context={place}", f"--local=dockerfile={place}"])

    return build


def _builders(bed: Bed) -> dict[str, Build]:
    kestrel = [str(bed.kestrel), "build", "--quiet", "--tag=bench-built"]
    docker = [*bed.docker, "build", "--quiet", "--tag=bench-built"]
    podman = [*bed.podman, "build", "--quiet", "--layers", "--tag=bench-built", f"--cgroup-parent=/{bed.names.build}"]
    classic, buildkit = {**os.environ, "DOCKER_BUILDKIT": "0"}, {**os.environ, "DOCKER_BUILDKIT": "1"}
    found: dict[str, Build] = {
        "kestrel": lambda place, *words: command([*kestrel, *words, str(place)]),
        "BuildKit": lambda place, *words: command([*docker, *words, str(place)], buildkit),
        "docker classic": lambda place, *words: command([*docker, *words, str(place)], classic),
        "podman": lambda place, *words: command([*podman, *words, str(place)]),
    }
    if bed.buildkit:
        found[HEAD] = _buildctl(bed, "type=image,name=bench-built")
    return found


def _of(build: Build, place: Path, *words: str) -> Callable[[], float]:
    return lambda: build(place, *words)


def _after_a_change(build: Build, place: Path, path: Path) -> Callable[[], float]:
    def once() -> float:
        path.write_bytes(os.urandom(2000).hex().encode())
        return build(place)

    return once


def _fill(place: Path) -> None:
    """Write every file anew, with content nobody has seen."""
    source = random.Random(os.urandom(8))
    for number in range(CONTEXT_FILES):
        directory = place / f"d{number % 100}"
        if number < 100:
            directory.mkdir(exist_ok=True)
        (directory / f"f{number // 100}").write_bytes(source.randbytes(4000))
