"""Ids of a container and of the host, and what a plan makes of them."""

from typing import Any

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.runtime_defaults import default_spec
from kestrel.runtime import operations as op
from kestrel.runtime import plan, users

ROOT = Rootfs(lowers=(Lower(path="/layer"),), upper="/upper", work="/work")
MAPPING = [{"containerID": 0, "hostID": 100_000, "size": 1000}, {"containerID": 1000, "hostID": 5000, "size": 1}]


def mapped() -> dict[str, Any]:
    spec = default_spec(["true"], namespaces=("pid", "mount", "user"))
    spec["linux"] |= {"uidMappings": MAPPING, "gidMappings": MAPPING}
    return spec


def test_ids_are_found_in_any_range() -> None:
    ids = users.ranges(MAPPING, MAPPING, "linux")
    assert [ids.uid(inside) for inside in (0, 999, 1000)] == [100_000, 100_999, 5000]
    with pytest.raises(InvalidArgument, match="group 1001 is in none"):
        ids.gid(1001)


@pytest.mark.parametrize(
    "entry",
    [
        {"containerID": 0, "hostID": 1},
        {"containerID": 0, "hostID": 1, "size": 0},
        {"containerID": -1, "hostID": 1, "size": 1},
        {"containerID": 0, "hostID": 2**32, "size": 1},
        {"containerID": True, "hostID": 1, "size": 1},
    ],
)
def test_a_mapping_that_is_none_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"linux\.uidMappings"):
        users.ranges([entry], MAPPING, "linux")


def test_a_plan_says_whose_users_they_are() -> None:
    lines = plan.build(mapped(), ROOT).describe()
    words = "users 0 to 999 are 100000 and on, 1000 to 1000 are 5000 and on on the host"
    assert f"enter a user namespace: {words}" in lines
    assert f"mount 1 layers as the root, writes go to /upper; {words}" in lines
    assert "make files as 100000:100000, the container's root" in lines


def test_files_are_made_as_the_container_s_root_from_the_first_mount_on() -> None:
    made = plan.build(mapped(), ROOT).operations
    kinds = [type(operation) for operation in made]
    assert kinds.index(users.ActAsOwner) == kinds.index(op.MountRoot) + 1 < kinds.index(op.MountFilesystem)


def test_ids_in_the_options_of_a_mount_are_the_container_s() -> None:
    made = plan.build(mapped(), ROOT).operations
    pts = next(o for o in made if isinstance(o, op.MountFilesystem) and o.kind == "devpts")
    assert ("gid", "100005") in pts.options.data


def test_a_mount_s_own_mappings_come_before_the_container_s() -> None:
    spec = mapped()
    own = [{"containerID": 0, "hostID": 7, "size": 1}]
    entry = {"destination": "/a", "type": "bind", "source": "/a", "options": ["rbind", "ridmap"]}
    spec["mounts"] += [entry, {**entry, "destination": "/b", "uidMappings": own, "gidMappings": own}]
    one, other = (o for o in plan.build(spec, ROOT).operations if isinstance(o, op.TakeSource))
    assert (one.idmap, one.ids) == ("ridmap", None)
    assert (other.idmap, other.ids) == ("ridmap", users.ranges(own, own, "mount"))


def test_an_id_mapped_mount_without_any_mappings_is_refused() -> None:
    spec = default_spec(["true"])
    spec["mounts"].append({"destination": "/a", "type": "bind", "source": "/a", "options": ["bind", "idmap"]})
    with pytest.raises(InvalidArgument, match="the id-mapped mount at /a has no mappings"):
        plan.build(spec, ROOT)
