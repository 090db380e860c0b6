import pytest

from kestrel.base.errors import InvalidArgument, Unimplemented
from kestrel.linux import abi
from kestrel.linux.rootfs import Lower, Rootfs
from kestrel.oci.runtime_defaults import default_spec
from kestrel.oci.runtime_shape import SPEC, fitted
from kestrel.runtime import devices, names, plan, sandbox, validate
from kestrel.runtime import operations as op
from kestrel.runtime.messages import SandboxRequest

ROOT = Rootfs(lowers=(Lower(path="/layers/a"),), upper="/u", work="/w")


def kinds(made: plan.Plan) -> list[str]:
    return [type(operation).__name__ for operation in made.operations]


def test_equal_specs_give_equal_plans() -> None:
    assert plan.build(default_spec(["true"]), ROOT) == plan.build(default_spec(["true"]), ROOT)


def test_sources_are_taken_before_and_the_root_is_entered_last() -> None:
    spec = default_spec(["true"])
    spec["mounts"].append({"destination": "/d", "type": "bind", "source": "/s", "options": ["rbind"]})
    order = kinds(plan.build(spec, ROOT))
    assert order[:3] == ["TakeSource", "OwnMounts", "MountRoot"]
    assert order[-1] == "EnterRoot"
    assert order.index("MountBind") < order.index("MakeDevice") < order.index("MaskPath") < order.index("ReadOnlyPath")


def test_namespaces_are_made_joined_or_inherited() -> None:
    spec = default_spec(["true"])
    spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/run/netns/x"}]
    made = plan.build(spec, ROOT)
    assert made.new == abi.CLONE_NEWNS | abi.CLONE_NEWPID
    assert made.joined == ((abi.CLONE_NEWNET, "/run/netns/x"),)


def test_a_mount_namespace_that_is_not_the_containers_own_is_left_as_it_is() -> None:
    made = plan.build(default_spec(["true"], namespaces=("pid",)), ROOT)
    assert op.OwnMounts(own=False) in made.operations
    assert op.MountRoot(ROOT, attached=False) in made.operations
    assert made.operations[-1] == op.EnterRoot("chroot")


def test_the_root_becomes_shared_only_once_it_is_entered() -> None:
    spec = default_spec(["true"])
    spec["linux"]["rootfsPropagation"] = "rshared"
    assert plan.build(spec, ROOT).operations[-1] == op.EnterRoot("pivot", abi.MS_SHARED, recursive=True)


def test_a_container_without_a_cgroup_namespace_is_shown_its_own_group_alone() -> None:
    shown = [
        next(o for o in plan.build(spec, ROOT, cgroup="pods/a").operations if isinstance(o, op.MountCgroups)).group
        for spec in (default_spec(["true"], namespaces=("mount", "pid")), default_spec(["true"]))
    ]
    assert shown == ["pods/a", ""]


def test_offsets_of_a_time_namespace_need_one() -> None:
    spec = default_spec(["true"], namespaces=("mount", "time"))
    spec["linux"]["timeOffsets"] = {"boottime": {"secs": 60, "nanosecs": 5}}
    assert plan.build(spec, ROOT).time_offsets == (("boottime", 60, 5),)
    spec["linux"]["namespaces"].pop()
    with pytest.raises(InvalidArgument, match="time namespace"):
        plan.build(spec, ROOT)


def test_hooks_run_between_the_mounts_and_the_root_being_entered() -> None:
    spec = default_spec(["true"])
    hook = {"path": "/bin/true"}
    spec["hooks"] = {"createContainer": [hook], "prestart": [hook], "startContainer": [hook], "poststop": [hook]}
    made = plan.build(spec, ROOT, state={"id": "a"})
    assert kinds(made)[-1] == "EnterRoot"
    assert kinds(made).index("HooksOutside") < kinds(made).index("HooksInside") < kinds(made).index("MaskPath")
    assert made.start_hooks is not None
    with pytest.raises(Unimplemented, match="hooks"):
        plan.build(spec, ROOT)


def test_hooks_of_a_kind_that_is_none_are_ignored() -> None:
    spec = {**default_spec(["true"]), "hooks": {"foo": "anything", "prestart": None}}
    assert plan.build(fitted(spec, SPEC), ROOT) == plan.build(default_spec(["true"]), ROOT)


@pytest.mark.parametrize("word", ["junk", "ro", "rw", ","])
def test_a_propagation_that_is_none_is_refused(word: str) -> None:
    spec = default_spec(["true"])
    spec["linux"]["rootfsPropagation"] = word
    with pytest.raises(InvalidArgument, match=f"rootfsPropagation={word} is not supported"):
        plan.build(spec, ROOT)


IDS = [{"containerID": 0, "hostID": 5000, "size": 100}]


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        ({"type": "tmpfs", "uidMappings": IDS, "gidMappings": IDS}, "at /x cannot be id-mapped: only bind mounts are"),
        ({"type": "tmpfs", "uidMappings": IDS, "options": ["idmap"]}, "at /x cannot be id-mapped: only bind"),
        ({"type": "bind", "options": ["tmpcopyup"]}, "bind mount at /x cannot have the option tmpcopyup"),
        ({"options": ["rbind", "idmap"]}, "the id-mapped mount at /x has no mappings"),
    ],
)
def test_what_a_mount_of_this_kind_cannot_do_is_refused(mount: dict[str, object], sentence: str) -> None:
    spec = default_spec(["true"])
    spec["mounts"].append({"destination": "/x", "source": "/s", **mount})
    with pytest.raises(InvalidArgument, match=sentence):
        plan.build(spec, ROOT)


def test_a_dev_of_the_host_is_left_alone() -> None:
    spec = default_spec(["true"])
    spec["mounts"] = [{"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}]
    assert "MakeDevice" not in kinds(plan.build(spec, ROOT))


def test_a_device_of_the_spec_replaces_the_default_of_the_same_path() -> None:
    spec = default_spec(["true"])
    spec["linux"]["devices"] = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}]
    made = [o for o in plan.build(spec, ROOT).operations if isinstance(o, devices.MakeDevice) and o.path == "/dev/null"]
    assert [device.mode for device in made] == [0o600]


def test_a_terminal_without_devpts_is_refused() -> None:
    spec = default_spec(["true"])
    spec["process"]["terminal"] = True
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "devpts"]
    with pytest.raises(InvalidArgument, match="devpts"):
        plan.build(spec, ROOT)


@pytest.mark.parametrize(
    ("path", "wanted"), [("/a/../b/./c/", "/b/c"), ("a", "/a"), ("/../../x", "/x"), ("/", "/"), ("", "/")]
)
def test_destinations_are_made_absolute(path: str, wanted: str) -> None:
    assert plan.absolute(path) == wanted


def test_a_plan_says_what_it_will_do_in_words() -> None:
    text = "\n".join(plan.build(default_spec(["sh", "-c", "x"]), ROOT).describe())
    assert "new namespaces: mount, pid, cgroup" in text
    assert "mount 1 layers as the root, writes go to /u" in text
    assert "mount proc at /proc (nosuid,nodev,noexec)" in text
    assert "make /proc/sys read-only" in text
    assert text.endswith("run sh -c x as user 0:0 in /")


@pytest.mark.parametrize(
    "change",
    [
        {"namespaces": [{"type": "mount"}, {"type": "mount"}]},
        {"namespaces": [{"type": "mount"}, {"type": "weird"}]},
        {"sysctl": {"kernel.core_pattern": "|/evil"}},
        {"sysctl": {"net.ipv4.ip_forward": "1"}},
        {"sysctl": {"kernel.shm_rmid_forced": "1\n2"}},
        {"namespaces": [{"type": "uts"}], "sysctl": {"kernel.hostname": "box"}},
        {"namespaces": [{"type": "uts"}], "sysctl": {"kernel/hostname": "box"}},
        {"namespaces": [{"type": "network"}], "sysctl": {"net/../kernel/core_pattern": "|/evil"}},
    ],
)
def test_a_spec_that_is_wrong_or_would_change_the_host_is_refused(change: dict[str, object]) -> None:
    spec = default_spec(["true"])
    spec["linux"].update(change)
    with pytest.raises(InvalidArgument):
        plan.build(spec, ROOT)


def test_a_sysctl_of_a_namespace_that_the_sandbox_owns_is_accepted() -> None:
    spec = default_spec(["true"])
    spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    made = plan.build(spec, ROOT, sandbox=frozenset({"network"}))
    assert names.SetSysctl("net.ipv4.ip_forward", "1") in made.operations


def test_what_is_not_built_is_refused_and_not_ignored() -> None:
    spec = default_spec(["true"])
    spec["linux"]["intelRdt"] = {"closID": "x"}
    with pytest.raises(Unimplemented):
        plan.build(spec, ROOT)


def test_network_devices_are_taken_before_anything_is_mounted() -> None:
    spec = default_spec(["true"], namespaces=("mount", "network"))
    spec["linux"]["netDevices"] = {"eth1": {}, "eth2": {"name": "data%d"}}
    first = plan.build(spec, ROOT).operations[0]
    assert first.describe() == "take network devices from the host: eth1, eth2 as data%d"


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ({"a/b": {}}, "'a/b' is not a name"),
        ({"eth0": {"name": ".."}}, "'..' is not a name"),
        ({"eth0\0": {}}, "is not a name"),
        ({"a" * 16: {}}, "is not a name"),
        ({"eth0": {"name": "x"}, "eth1": {"name": "x"}}, "two devices are to be x"),
    ],
)
def test_names_that_no_network_device_can_have_are_refused(devices: dict[str, object], said: str) -> None:
    spec = default_spec(["true"], namespaces=("mount", "network"))
    spec["linux"]["netDevices"] = devices
    with pytest.raises(InvalidArgument, match=said):
        plan.build(spec, ROOT)


def test_network_devices_need_a_network_namespace() -> None:
    spec = default_spec(["true"], namespaces=("mount", "pid"))
    spec["linux"]["netDevices"] = {"eth0": {}}
    with pytest.raises(InvalidArgument, match="network namespace"):
        plan.build(spec, ROOT)


@pytest.mark.parametrize(
    ("name", "dotted"),
    [
        ("net.ipv4.ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0/1.forwarding"),
    ],
)
def test_the_words_of_a_sysctl_are_parted_by_either_character(name: str, dotted: str) -> None:
    assert validate.dotted(name) == dotted
    validate.sysctl(name, "1", frozenset({"network"}))


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.3.0", "1.99.1"])
def test_every_1_x_version_is_accepted(version: str) -> None:
    plan.build(default_spec(["true"]) | {"ociVersion": version}, ROOT)


def test_version_2_is_not() -> None:
    with pytest.raises(InvalidArgument, match="ociVersion"):
        plan.build(default_spec(["true"]) | {"ociVersion": "2.0.0"}, ROOT)


def test_a_bind_from_the_container_s_own_root_is_taken_when_its_turn_comes() -> None:
    spec = default_spec(["true"])
    spec["root"] = {"path": "/bundle/rootfs"}
    spec["mounts"] += [
        {"destination": "/a", "type": "bind", "source": "/data", "options": ["rbind"]},
        {"destination": "/bundle/rootfs/b", "type": "bind", "source": "/bundle/rootfs/a", "options": ["rbind"]},
    ]
    made = plan.build(spec)
    first = [o for o in made.operations if isinstance(o, op.TakeSource)]
    binds = {o.destination: o for o in made.operations if isinstance(o, op.MountBind)}
    assert [source.path for source in first] == ["/data"]
    assert binds["/a"].take is None
    assert binds["/b"].take is not None  # its destination was written as the host sees it
    assert binds["/b"].take.path == "/bundle/rootfs/a"


def test_a_filesystem_in_memory_is_closed_when_all_is_in_it() -> None:
    spec = default_spec(["true"])
    for mount in spec["mounts"]:
        if mount["destination"] == "/dev":
            mount["options"] = [*mount["options"], "ro"]
    operations = plan.build(spec, ROOT).operations
    kinds = [type(o) for o in operations]
    assert op.CloseFilesystem("/dev") in operations
    last = max(i for i, kind in enumerate(kinds) if kind is devices.MakeDevice)
    assert operations.index(op.CloseFilesystem("/dev")) > last


@pytest.mark.parametrize("member", ["hostname", "domainname"])
def test_the_host_is_not_renamed(member: str) -> None:
    spec = {**default_spec(["true"], namespaces=("pid", "mount")), member: "other"}
    with pytest.raises(InvalidArgument, match=f"unable to set {member} without a private UTS namespace"):
        plan.build(spec)
    spec["linux"]["namespaces"].append({"type": "uts"})
    assert any("name to other" in operation.describe() for operation in plan.build(spec).operations)


def test_a_sandbox_with_a_name_has_a_namespace_for_it() -> None:
    named = SandboxRequest(id="box", directory="/x", host_network=True, domainname="other")
    assert sandbox.owned(named) == {"uts", "ipc"}
