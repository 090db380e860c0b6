"""kill -9 in the middle, again and again, and full disks: what was acknowledged is there, nothing half-written is."""

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kestrel
from kestrel.base.db import Database
from kestrel.base.errors import ResourceExhausted
from kestrel.content import Store
from kestrel.oci.digest import Digest
from kestrel.snapshots import Erofs, Overlay, missing
from kestrel.testing.images import compressed, layer
from kestrel.testing.snapshot_suite import tree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

WRITER = """
import sys, os, random
from pathlib import Path
from kestrel.base.db import Database
from kestrel.content import Store
root = Path(sys.argv[1])
store = Store(root, Database(root / "kestrel.db"))
chooser = random.Random(int(sys.argv[2]))
while True:
    data = chooser.randbytes(chooser.choice([10, 5000, 300_000]))
    with store.writer() as writer:
        for start in range(0, len(data), 4096):
            writer.write(data[start:start + 4096])
        print(writer.commit(), flush=True)
    name = f"u{chooser.randint(0, 2)}"
    with store.upload(name) as upload:
        upload.write(b"x" * 1000)
        print("upload", name, upload.offset, flush=True)
"""

UNPACKER = """
import sys, io
from pathlib import Path
from kestrel.base.db import Database
from kestrel.oci.digest import Digest
from kestrel.snapshots import FORM
from kestrel.testing.images import layer
root = Path(sys.argv[1])
snapshots = FORM(root, Database(root / "kestrel.db"))
number = int(sys.argv[2]) * 1000
while True:
    number += 1
    tar = layer({f"d{n % 7}/f{n}": b"%d" % number * 50 for n in range(60)})
    snapshots.add_layer(Digest.of(tar), io.BytesIO(tar))
    print("layer", number, Digest.of(tar), flush=True)
    snapshots.prepare(f"k{number}", [Digest.of(tar)])
    print("snapshot", f"k{number}", flush=True)
    if number % 3 == 0:
        snapshots.remove(f"k{number}")
        print("removed", f"k{number}", flush=True)
        snapshots.remove_layer(Digest.of(tar))
        print("unlayered", number, Digest.of(tar), flush=True)
"""


def until_killed(program: str, root: Path, seed: int, seconds: float) -> list[str]:
    """Run a program, kill it after a while; returns the lines it had printed: what it had acknowledged."""
    source = Path(kestrel.__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(root), str(seed)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(source)},
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        first = process.stdout.readline()  # it has started
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    process.wait()
    assert first, "the program died by itself"
    lines = (first + rest).split("\n")
    return lines[:-1]  # the last one may have been cut


def test_no_acknowledged_blob_is_lost_and_none_is_wrong(tmp_path: Path) -> None:
    chooser = random.Random(1)
    acknowledged: list[Digest] = []
    uploads: dict[str, int] = {}
    for seed in range(12):
        for line in until_killed(WRITER, tmp_path, seed, chooser.random() * 0.1):
            if line.startswith("upload "):
                _, name, offset = line.split()
                uploads[name] = int(offset)
            else:
                acknowledged.append(Digest.parse(line))
        database = Database(tmp_path / "kestrel.db")
        store = Store(tmp_path, database)
        assert list((tmp_path / "ingest").iterdir()) == []
        found = {blob.digest for blob in store.walk()}
        assert set(acknowledged) <= found
        for digest in found:
            assert hashlib.sha256(store.path(digest).read_bytes()).hexdigest() == digest.hex
        for name, offset in uploads.items():
            with store.upload(name, create=False) as upload:
                assert upload.offset >= offset
        database.close()
    assert len(acknowledged) > 12


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("form", [Overlay, Erofs])
def test_layers_and_snapshots_are_whole_or_absent(tmp_path: Path, form: "type[Overlay | Erofs]") -> None:
    chooser = random.Random(2)
    layers: dict[str, int] = {}
    keys: set[str] = set()
    doubtful: set[str] = set()
    for seed in range(8):
        for line in until_killed(UNPACKER.replace("FORM", form.__name__), tmp_path, seed, chooser.random() * 0.15):
            verb, *rest = line.split()
            if verb == "layer":
                layers[rest[1]] = int(rest[0])
            elif verb == "unlayered":
                layers.pop(rest[1], None)
            elif verb == "snapshot":
                keys.add(rest[0])
            else:
                keys.discard(rest[0])
        # What is removed every third time may have gone without having been reported.
        doubtful |= {name for name, number in layers.items() if number % 3 == 0}
        database = Database(tmp_path / "kestrel.db")
        snapshots = form(tmp_path, database)
        known = set(snapshots.layers())
        assert set(layers) - doubtful <= known
        assert {key for key in keys if int(key[1:]) % 3} <= set(snapshots.keys())
        for diff_id in known:
            files = [content for content in tree(snapshots.view([diff_id])).values() if isinstance(content, bytes)]
            assert len(files) == 60
            assert len(set(files)) == 1
        assert list((tmp_path / "layers/new").iterdir()) == []
        assert list((tmp_path / "trash").iterdir()) == []
        if isinstance(snapshots, Erofs):
            snapshots.close()
        database.close()
    assert len(layers) > 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of four megabytes."""
    place = tmp_path / "ktest-disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "ktest", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.root
@needs_root
def test_a_full_disk_is_a_sentence_with_a_remedy_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    database = Database(tmp_path / "kestrel.db")
    store = Store(small_disk, database)
    kept = store.put(b"kept")
    with pytest.raises(ResourceExhausted, match=f"no space left on the disk that holds {small_disk}") as caught:
        store.put(os.urandom(8 << 20))
    assert "kestrel df" in str(caught.value.hint)
    assert [blob.digest for blob in store.walk()] == [kept]
    assert store.usage() == 4
    store.put(os.urandom(1 << 20))
    database.close()


@pytest.mark.root
@needs_root
def test_a_resumable_upload_keeps_what_fitted_on_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    database = Database(tmp_path / "kestrel.db")
    store = Store(small_disk, database)
    with store.upload("u") as upload:
        upload.write(bytes(3 << 20))
        with pytest.raises(ResourceExhausted):
            upload.write(bytes(3 << 20))
        assert upload.offset == (tmp_path / "ktest-disk/uploads/u").stat().st_size
    with store.upload("u") as upload:
        assert upload.offset >= 3 << 20
        upload.abort()
    assert store.usage() == 0
    database.close()


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("form", [Overlay, Erofs])
def test_a_layer_that_does_not_fit_leaves_nothing(
    small_disk: Path, tmp_path: Path, form: "type[Overlay | Erofs]"
) -> None:
    database = Database(tmp_path / "kestrel.db")
    snapshots = form(small_disk, database)
    tar = layer({"fits": b"x" * 1000, "zeros": bytes(16 << 20)})
    with pytest.raises(ResourceExhausted, match="no space left"):
        snapshots.add_layer(Digest.of(tar), io.BytesIO(compressed(tar, "gzip")))
    assert snapshots.layers() == []
    assert list((small_disk / "layers/new").iterdir()) == []
    small = layer({"fits": b"x" * 1000})
    snapshots.add_layer(Digest.of(small), io.BytesIO(small))
    assert snapshots.layers() == [Digest.of(small)]
    database.close()


@pytest.mark.root
@needs_root
def test_a_disk_whose_files_cannot_be_mounted_is_noticed(small_disk: Path) -> None:
    assert "files on this filesystem" in missing(small_disk)  # tmpfs
