"""Containers in a user namespace, from inside: whose they think files are, and whose they are on the host."""

import asyncio
import os
import stat
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from kestrel.archive.entries import TarReader
from kestrel.archive.erofs import write_index
from kestrel.archive.layertree import LayerTree
from kestrel.base.errors import InvalidArgument, Unavailable
from kestrel.engine import spec as specs
from kestrel.engine.identity import Identity
from kestrel.engine.model import Container, ContainerConfig, ContainerState, Mount
from kestrel.engine.nameservice import FILES
from kestrel.linux import user_namespaces
from kestrel.linux.rootfs import Lower
from kestrel.oci.config import ContainerDefaults
from kestrel.snapshots import missing
from kestrel.testing.instance import children

pytestmark = pytest.mark.root

BASE, SIZE = 1_700_000, 65_536
MAPPING = [{"containerID": 0, "hostID": BASE, "size": SIZE}]


def mapped(box: Any, *args: str, **linux: Any) -> dict[str, Any]:
    """Return a spec with a user namespace."""
    spec: dict[str, Any] = box.spec(*args, **linux)
    spec["linux"]["namespaces"].append({"type": "user"})
    spec["linux"] |= {"uidMappings": MAPPING, "gidMappings": MAPPING}
    return spec


async def script(box: Any, text: str, **linux: Any) -> str:
    """Run a script as the container's root; return its output."""
    code, output = await box.run("c", mapped(box, text, **linux))
    assert code == 0, output
    return str(output)


async def test_a_map_can_be_any_range_and_the_process_that_carried_it_is_gone() -> None:
    before = set(os.listdir("/proc"))
    fd = user_namespaces.make(((0, BASE, SIZE),), ((0, BASE, 10), (20, BASE + 20, 5)))
    try:
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("user:")
        assert not {name for name in set(os.listdir("/proc")) - before if name.isdigit() and _is_child(name)}
    finally:
        os.close(fd)


def _is_child(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    except OSError:
        return False


async def test_root_inside_is_a_range_s_first_user_outside(box: Any) -> None:
    pid = await box.start("c", mapped(box, "sleep", "60"))
    status = Path(f"/proc/{pid}/status").read_text()
    assert f"Uid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}\n" in status
    assert f"Gid:\t{BASE}\t{BASE}\t{BASE}\t{BASE}\n" in status
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    seen = (await box.shim.exec_sync("c", {"args": ["cat", "/proc/self/uid_map"]})).stdout.split()
    assert [int(word) for word in seen] == [0, BASE, SIZE]
    seen = (await box.shim.exec_sync("c", {"args": ["id"]})).stdout
    assert seen.startswith(b"uid=0(root) gid=0")


async def test_the_image_is_root_s_and_nothing_on_disk_was_changed_for_it(box: Any) -> None:
    said = await script(box, "stat -c '%u:%g' / /bin/busybox /etc/passwd /dev /dev/null /dev/shm /dev/pts/ptmx /tmp")
    assert said.split() == ["0:0"] * 8
    assert (box.layer / "bin/busybox").stat().st_uid == 0


async def test_what_it_writes_is_the_range_s_on_the_host(box: Any) -> None:
    await script(box, "echo hi >/new; echo more >>/etc/passwd; mkdir /d; touch /d/f; chown 1000:1000 /d/f")
    upper = box.directory / "c/upper"
    owners = {name: (upper / name).stat().st_uid - BASE for name in ("new", "etc/passwd", "d", "d/f")}
    assert owners == {"new": 0, "etc/passwd": 0, "d": 0, "d/f": 1000}
    assert upper.stat().st_uid == BASE
    assert (box.layer / "etc/passwd").stat().st_uid == 0


async def test_a_plain_user_of_the_container_is_one_of_the_range_too(box: Any) -> None:
    spec = mapped(box, "id -u; id -g; echo out >/dev/stdout; echo no >/x")
    spec["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    code, output = await box.run("c", spec)
    assert code != 0
    assert output.split()[:3] == ["1000", "1000", "out"]
    assert "can't create /x: Permission denied" in output


async def test_a_user_outside_of_the_range_is_refused(box: Any) -> None:
    spec = mapped(box, "true")
    spec["process"]["user"] = {"uid": SIZE, "gid": 0}
    with pytest.raises(InvalidArgument, match=f"user {SIZE} is in none of the container's ranges"):
        await box.create("c", spec)


async def test_a_volume_keeps_the_host_s_owners_unless_it_is_id_mapped(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    (tmp_path / "f").chmod(0o600)
    tmp_path.chmod(0o755)
    spec = mapped(box, "stat -c %u /plain/f /mapped/f; cat /mapped/f; touch /mapped/new; cat /plain/f")
    for name, options in (("plain", ["rbind"]), ("mapped", ["rbind", "idmap"])):
        spec["mounts"].append({"destination": f"/{name}", "type": "bind", "source": str(tmp_path), "options": options})
    code, output = await box.run("c", spec)
    assert code != 0
    assert output.split()[:2] == ["65534", "0"]
    assert "mine" in output
    assert "can't open '/plain/f': Permission denied" in output
    assert (tmp_path / "new").stat().st_uid == 0


async def test_a_mount_has_mappings_of_its_own_without_any_user_namespace(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    own = [{"containerID": 0, "hostID": 3000, "size": 10}]
    spec = box.spec("stat -c %u /data/f; touch /data/new")
    spec["mounts"].append(
        {
            "destination": "/data",
            "type": "bind",
            "source": str(tmp_path),
            "options": ["bind"],
            "uidMappings": own,
            "gidMappings": own,
        }
    )
    code, output = await box.run("c", spec)
    assert output.split()[0] == "3000"
    assert code != 0  # root of the host has no number on such a mount


async def test_rights_are_over_the_container_and_not_the_host(box: Any) -> None:
    spec = mapped(box, "grep -h Cap /proc/self/status; chown 7:7 /etc/passwd; mount -t tmpfs x /tmp; echo $?")
    code, output = await box.run("c", spec)
    assert code == 0
    assert "CapInh:\t0000000000000000" in output
    assert output.split()[-1] != "0"


async def test_even_with_every_right_its_mounts_cannot_be_taken_away(box: Any) -> None:
    spec = mapped(box, "umount /proc/kcore; mount -o remount,rw /sys; echo x >/proc/sys/kernel/core_pattern; true")
    every = [f"CAP_{name}" for name in ("SYS_ADMIN", "CHOWN", "DAC_OVERRIDE", "SETUID", "SETGID", "SYS_PTRACE")]
    spec["process"]["capabilities"] = dict.fromkeys(("bounding", "permitted", "effective"), every)
    del spec["linux"]["seccomp"]
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    _, output = await box.run("c", spec)
    assert len(output.splitlines()) == 3, output  # one refusal each
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


async def test_proc_sys_and_cgroups_are_there(box: Any) -> None:
    said = await script(box, "ls /proc/1/ns >/dev/null; ls /sys/class >/dev/null; ls /sys/fs/cgroup; echo $$")
    assert said.split()[-1] == "1"


async def test_devices_work_and_only_those(box: Any) -> None:
    said = await script(box, "head -c 4 /dev/zero | wc -c; echo x >/dev/null; mknod /tmp/n c 1 3 2>&1; true")
    assert said.split()[0] == "4"
    assert "Operation not permitted" in said


async def test_exec_joins_the_user_namespace_and_its_output_can_be_opened_by_name(box: Any) -> None:
    await box.start("c", mapped(box, "sleep", "60"))
    text = "readlink /proc/self/ns/user; readlink /proc/1/ns/user; echo named >/dev/stdout; grep Uid /proc/self/status"
    done = await box.shim.exec_sync("c", {"args": ["sh", "-c", text]})
    words = done.stdout.decode().split()
    assert words[0] == words[1]
    assert words[2:] == ["named", "Uid:", "0", "0", "0", "0"], done
    done = await box.shim.exec_sync("c", {"args": ["id", "-u"], "user": {"uid": 33, "gid": 33}})
    assert done.stdout == b"33\n"


async def test_containers_of_a_sandbox_share_one_user_namespace(box: Any) -> None:
    pids = [await box.start(name, mapped(box, "sleep", "60")) for name in ("a", "b")]
    one, other = (os.readlink(f"/proc/{pid}/ns/user") for pid in pids)
    assert one == other


async def test_a_terminal_belongs_to_the_user(box: Any) -> None:
    spec = mapped(box, "stat -c %u /dev/console $(tty); echo typed >$(tty)")
    code, output = await box.run("c", spec, terminal=True)
    assert code == 0, output
    assert output.split() == ["0", "0", "typed"]


async def test_mappings_that_make_no_sense_are_named(box: Any) -> None:
    spec = mapped(box, "true")
    spec["linux"]["uidMappings"] = []
    with pytest.raises(InvalidArgument, match=r"linux\.uidMappings must have 1 to 340 entries"):
        await box.create("c", spec)
    spec = box.spec("true", uidMappings=MAPPING)
    with pytest.raises(InvalidArgument, match=r"linux\.uidMappings needs a user namespace"):
        await box.create("c", spec)


async def test_many_starts_leave_no_namespace_and_no_zombie_behind(box: Any) -> None:
    for index in range(5):
        name = f"c{index}"
        assert (await box.run(name, mapped(box, "true")))[0] == 0
        await box.shim.delete(name)
    await asyncio.sleep(0)
    open_now = [os.readlink(f"/proc/{box.shim.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{box.shim.pid}/fd")]
    assert len([target for target in open_now if target.startswith("user:")]) == 1
    assert len(children(box.shim.pid)) == 1  # the shim is its keeper's


async def test_a_shadowed_upper_is_still_private_to_the_range(box: Any) -> None:
    await script(box, "touch /secret; chmod 600 /secret")
    info = (box.directory / "c/upper/secret").stat()
    assert (info.st_uid, stat.S_IMODE(info.st_mode)) == (BASE, 0o600)


async def test_the_sandbox_s_namespaces_are_its_own_root_s(box: Any) -> None:
    users = await another(box, "owned")
    try:
        text = "hostname changed && hostname && ip addr add 10.9.8.7/32 dev lo && ip addr show lo | grep -c 10.9.8.7"
        spec = mapped(box, f"{text}; ping -c 1 -W 5 127.0.0.1 | grep -c ' 0% packet loss'; nc -l -p 80 -e cat")
        for kind in ("bounding", "effective", "permitted"):
            spec["process"]["capabilities"][kind] += ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        spec["linux"].pop("seccomp")  # the default one is for who has no such capabilities
        await users.create("c", spec, box.rootfs("c"), cgroup=f"{box.cgroup}/owned/c")
        session = await users.attach("c", stdin=False)
        await users.start("c")
        assert await said(session, "1\n1\n") == "changed\n1\n1\n"
        assert os.fstat(users.netns).st_ino != os.stat("/proc/self/ns/net").st_ino
        assert await echoed(users, 80) == b"ping"
        await session.close()
    finally:
        await users.shutdown()
        await users.close()


async def another(box: Any, name: str) -> Any:
    """Return the shim of another sandbox, one with users of its own."""
    (box.directory / name).mkdir()
    return await box.zygote.shim(replace(box.request(name), uid_mappings=MAPPING, gid_mappings=MAPPING))


async def said(session: Any, last: str) -> str:
    """Read until something has been said."""
    heard = ""
    async with asyncio.timeout(10):
        while not heard.endswith(last):
            chunk = await session.read()
            assert chunk is not None, heard
            heard += chunk[1].decode()
    return heard


async def echoed(shim: Any, port: int) -> bytes:
    """Return what a port of a sandbox makes of `ping`."""
    async with asyncio.timeout(10):
        while True:
            try:
                reader, writer = await shim.dial(port)
                break
            except Unavailable:
                await asyncio.sleep(0.02)
        writer.write(b"ping")
        writer.write_eof()
        heard: bytes = await reader.read()
    writer.close()
    await writer.wait_closed()
    return heard


async def test_who_may_mount_does_so_and_cannot_take_away_what_we_have_mounted(box: Any) -> None:
    text = (
        "mount -t tmpfs none /tmp && touch /tmp/mine && echo mounted; cat /proc/timer_list | wc -c;"
        " umount /proc/timer_list; mount -o remount,rw /sys; mount -t proc proc /tmp; umount /sys"
    )
    spec = mapped(box, text)
    for kind in ("bounding", "effective", "permitted"):
        spec["process"]["capabilities"][kind] += ["CAP_SYS_ADMIN"]
    spec["linux"].pop("seccomp")  # the default one is for who has no such capability
    _, output = await box.run("c", spec)
    assert output.startswith("mounted\n0\n"), output
    refused = ("can't unmount /proc/timer_list", "mount: permission denied", "can't unmount /sys: Invalid argument")
    assert all(text in output for text in refused), output


async def test_layers_as_an_index_over_a_tar_are_mapped_too(box: Any, tmp_path: Path) -> None:
    if reason := missing(tmp_path):
        pytest.skip(reason)
    layer = index(box.layer, tmp_path)
    rootfs = replace(box.rootfs("c"), lowers=(layer,))
    spec = mapped(box, "stat -c %u:%g /bin/busybox /etc/passwd; echo more >>/etc/passwd; stat -c %u /etc/passwd")
    code, output = await box.run("c", spec, rootfs=rootfs)
    assert (code, output.split()) == (0, ["0:0", "0:0", "0"])
    assert (box.directory / "c/upper/etc/passwd").stat().st_uid == BASE


def index(source: Path, target: Path) -> Lower:
    """Return a layer of the same files, as a tar and its index."""
    with tarfile.open(target / "tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, ".")
    tree = LayerTree()
    with open(target / "tar", "rb", buffering=0) as tar, open(target / "index", "xb", buffering=0) as made:
        for entry in TarReader(tar):
            tree.add(entry)
        write_index(tree.top, tar.fileno(), made.fileno())
    return Lower(kind="erofs", path=str(target / "index"), data=str(target / "tar"))


async def test_the_engine_s_spec_maps_what_is_given_of_the_host(box: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("mine")
    container = Container(
        id="c",
        config=ContainerConfig(
            name="c",
            image="busybox",
            command=("sh", "-c", "cat /proc/self/uid_map; stat -c %u /data/f /etc/hosts; echo x >/data/g"),
            mounts=(Mount(kind="bind", source=str(tmp_path), target="/data"),),
        ),
        sandbox="0123456789ab",
        first_id=BASE,
        image_id="",
        image_digest="",
        state=ContainerState.CREATED,
        created=datetime.now(UTC),
    )
    for name in FILES:
        (tmp_path / name).touch()
        os.chown(tmp_path / name, BASE, BASE)  # as `nameservice.write` does
    facts = specs.Facts(
        identity=Identity(uid=0, gid=0, groups=(), home="/root"),
        image=ContainerDefaults(),
        hostname="box",
        name_files=tmp_path,
        seccomp=None,
        volumes={},
    )
    code, output = await box.run("c", specs.build(container, facts))
    assert (code, output.split()) == (0, ["0", str(BASE), "65536", "0", "0"])
    assert (tmp_path / "g").stat().st_uid == 0
