"""Docker's short forms."""

import pytest

from kestrel.base.errors import InvalidArgument
from kestrel.control import words
from kestrel.engine import Mount, PortMapping


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("80", PortMapping(container_port=80)),
        ("8080:80", PortMapping(container_port=80, host_port=8080)),
        ("127.0.0.1:8080:80/udp", PortMapping(container_port=80, host_port=8080, host_ip="127.0.0.1", protocol="udp")),
        ("127.0.0.1::80", PortMapping(container_port=80, host_ip="127.0.0.1")),
        ("[::1]:8080:80", PortMapping(container_port=80, host_port=8080, host_ip="::1")),
    ],
)
def test_ports_are_read_as_docker_reads_them(text, mapping):
    assert words.port(text) == mapping


@pytest.mark.parametrize("text", ["", "x", "0", "65536", "80/sctp", "a:80", "80:"])
def test_a_port_that_is_none_is_refused(text):
    with pytest.raises(InvalidArgument):
        words.port(text)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("nofile=1024", ("nofile", 1024, 1024)),
        ("nofile=1024:4096", ("nofile", 1024, 4096)),
        ("memlock=-1", ("memlock", -1, -1)),
        ("core=0:-1", ("core", 0, -1)),
    ],
)
def test_limits_are_read_as_docker_reads_them(text, limit):
    assert words.ulimit(text) == limit


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nofiles=1", "unknown limit 'nofiles'"),
        ("NOFILE=1", "unknown limit 'NOFILE'"),
        ("nofile", "invalid limit"),
        ("nofile=2:1", "above the hard one"),
        ("nofile=-1:1", "above the hard one"),
        ("nofile=-2", "invalid limit"),
        ("nofile=9223372036854775808", "invalid limit"),
    ],
)
def test_a_limit_that_is_none_is_refused(text, complaint):
    with pytest.raises(InvalidArgument, match=complaint):
        words.ulimit(text)


def test_of_two_limits_of_a_name_the_last_counts():
    assert words.ulimits(["core=0", "nofile=1", "nofile=2"]) == (("core", 0, 0), ("nofile", 2, 2))


def test_a_source_with_a_slash_is_a_path_and_any_other_a_volume():
    assert words.volume("/a:/b:ro") == Mount(source="/a", target="/b", read_only=True)
    assert words.volume("data:/b") == Mount(kind="volume", source="data", target="/b")


@pytest.mark.parametrize("text", ["/a", "/a:b", ":/b", "/a:/b:rx"])
def test_a_volume_that_is_none_is_refused(text):
    with pytest.raises(InvalidArgument):
        words.volume(text)
