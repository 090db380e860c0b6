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


def test_a_source_with_a_slash_is_a_path_and_any_other_a_volume():
    assert words.volume("/a:/b:ro") == Mount(source="/a", target="/b", read_only=True)
    assert words.volume("data:/b") == Mount(kind="volume", source="data", target="/b")


@pytest.mark.parametrize("text", ["/a", "/a:b", ":/b", "/a:/b:rx"])
def test_a_volume_that_is_none_is_refused(text):
    with pytest.raises(InvalidArgument):
        words.volume(text)
