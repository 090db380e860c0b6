from pathlib import Path

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.linux.cgroups import DeviceRule
from kestrel.linux.cgroups.v1 import V1, controllers
from kestrel.linux.cgroups.v2 import converted, weight
from kestrel.runtime.resources import DEFAULT_DEVICES, device_rules, limits


def test_the_spec_s_numbers_become_limits_and_zero_is_no_limit() -> None:
    made = limits({"memory": {"limit": 1000, "swap": 2000}, "cpu": {"quota": 5, "shares": 0}, "pids": {"limit": 7}})
    assert (made.memory, made.swap, made.quota, made.shares, made.pids) == (1000, 2000, 5, None, 7)


def test_version_2_gets_its_own_units() -> None:
    made = limits(
        {
            "memory": {"limit": 1000, "swap": 1500},
            "cpu": {"quota": 50000, "period": 100000, "shares": 1024, "cpus": "0"},
            "pids": {"limit": -1},
            "unified": {"memory.high": "900"},
        }
    )
    assert dict(converted(made)) == {
        "memory.max": "1000",
        "memory.swap.max": "500",
        "cpu.weight": "100",
        "cpu.max": "50000 100000",
        "cpuset.cpus": "0",
        "pids.max": "max",
        "memory.high": "900",
    }


@pytest.mark.parametrize(("shares", "wanted"), [(0, 1), (2, 1), (1024, 100), (262144, 10000), (10**9, 10000)])
def test_cpu_shares_become_weights_between_1_and_10000(shares: int, wanted: int) -> None:
    assert weight(shares) == wanted


def test_the_default_devices_are_allowed_after_the_spec_s_rules_and_no_others() -> None:
    assert device_rules({"devices": [{"allow": False, "access": "rwm"}]}) == (DeviceRule(allow=False), *DEFAULT_DEVICES)


@pytest.mark.parametrize(("limit", "wanted"), [(0, 1), (1, 1), (-1, -1), (None, None)])
def test_no_process_at_all_is_one(limit: int | None, wanted: int | None) -> None:
    assert limits({"pids": {"limit": limit}}).pids == wanted


def test_weights_of_single_devices_are_kept() -> None:
    spec = {"blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}}
    assert limits(spec).io_weights == ("8:0 500",)
    assert ("io.bfq.weight", "8:0 500") in converted(limits(spec))


def test_a_rule_that_allows_everything_needs_no_filter() -> None:
    assert device_rules({"devices": [{"allow": True, "access": "rwm"}]}) is None


def test_fuse_is_not_among_the_defaults() -> None:
    assert not any((rule.major, rule.minor) == (10, 229) for rule in DEFAULT_DEVICES)


def test_access_to_all_is_written_in_more_than_one_way() -> None:
    rules = device_rules({"devices": [{"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rwa"}]})
    assert rules is not None
    assert rules[0].access == "rwm"


def test_a_rule_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        device_rules({"devices": [{"allow": True, "type": "z"}]})


NETWORK = {
    "network": {"classID": 0x100001, "priorities": [{"name": "e", "priority": 0}, {"name": "lo", "priority": 5}]}
}
RDMA = {"rdma": {"mlx4_0": {"hcaObjects": 1000}, "mlx5_1": {"hcaHandles": 3, "hcaObjects": 0}}}


def test_networks_and_adapters_have_files_of_version_1(tmp_path: Path) -> None:
    # Not mounted where tests run, and to mount them would change the host's groups. Plain files: the last line stays.
    made = limits({**NETWORK, **RDMA})
    for controller, *files in (("net_cls", "classid"), ("net_prio", "ifpriomap"), ("rdma", "max")):
        for name in ("cgroup.procs", "a/cgroup.procs", *(f"a/{controller}.{file}" for file in files)):
            (tmp_path / controller / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / controller / name).touch()
    V1(str(tmp_path), controllers(str(tmp_path))).create("a", made).limit(made)
    assert (tmp_path / "net_cls/a/net_cls.classid").read_text() == "1048577"
    assert (tmp_path / "net_prio/a/net_prio.ifpriomap").read_text() == "lo 5"
    assert (tmp_path / "rdma/a/rdma.max").read_text() == "mlx5_1 hca_handle=3 hca_object=0"


def test_version_2_limits_adapters_and_does_not_mark_packets() -> None:
    found = converted(limits(RDMA))
    assert found == [("rdma.max", "mlx4_0 hca_object=1000"), ("rdma.max", "mlx5_1 hca_handle=3 hca_object=0")]
    with pytest.raises(OSError, match="does not mark packets"):
        converted(limits(NETWORK))
