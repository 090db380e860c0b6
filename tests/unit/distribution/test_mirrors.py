"""Three programs' files about mirrors, read into one model."""

import ssl
from pathlib import Path

import pytest

from kestrel.base.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from kestrel.distribution.hosts import Endpoint, Hosts, Settings
from kestrel.distribution.mirrors import PULL, PUSH, RESOLVE, Host
from kestrel.http.tls import Authority


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    return tmp_path / "etc"


def write(etc: Path, name: str, text: str) -> Path:
    path = etc / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def urls(etc: Path, domain: str, repository: str, capability: str) -> list[str]:
    """Return the first address each host would be asked at for the repository."""
    hosts = Hosts(Settings(etc=etc))
    found = [hosts.candidates(host)[0] for host in hosts.of(domain, repository, capability)]
    return [endpoint.url(f"{repository}/manifests/1") for endpoint in found]


# --- containerd -----------------------------------------------------------------------------------------------------


def test_hosts_of_a_registry_are_asked_in_the_files_order_and_the_server_last(etc: Path) -> None:
    write(
        etc,
        "containerd/certs.d/docker.io/hosts.toml",
        'server = "https://registry-1.docker.io"\n[host."https://mirror.lan:8443"]\ncapabilities = ["pull"]\n'
        '[host."http://cache.lan/proxy"]\ncapabilities = ["pull", "resolve"]\n[host."https://own.lan/api"]\n'
        'override_path = true\ncapabilities = ["push"]\n',
    )
    assert urls(etc, "docker.io", "library/box", PULL) == [
        "https://mirror.lan:8443/v2/library/box/manifests/1?ns=docker.io",
        "http://cache.lan/proxy/v2/library/box/manifests/1?ns=docker.io",
        "https://registry-1.docker.io/v2/library/box/manifests/1",
    ]
    assert len(urls(etc, "docker.io", "library/box", RESOLVE)) == 2
    assert urls(etc, "docker.io", "library/box", PUSH) == ["https://own.lan/api/library/box/manifests/1?ns=docker.io"]


def test_a_registry_with_a_port_and_any_other_have_directories_of_their_own(etc: Path) -> None:
    write(etc, "containerd/certs.d/reg.lan_5000_/hosts.toml", '[host."https://a.lan"]\n')
    write(etc, "containerd/certs.d/_default/hosts.toml", '[host."https://b.lan"]\n')
    assert urls(etc, "reg.lan:5000", "x", PULL)[0].startswith("https://a.lan/")
    assert urls(etc, "other.lan", "x", PULL) == [
        "https://b.lan/v2/x/manifests/1?ns=other.lan",
        "https://other.lan/v2/x/manifests/1",
    ]
    assert urls(etc, "third.lan", "x", PULL)[1] == "https://third.lan/v2/x/manifests/1"


def test_headers_patience_and_certificates_of_a_host_are_taken(etc: Path, tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path / "authority")
    file = write(
        etc,
        "containerd/certs.d/reg.lan/hosts.toml",
        '[host."https://m.lan"]\nca = "ca.crt"\ndial_timeout = "1500ms"\n[host."https://m.lan".header]\n'
        'x-team = ["one"]\n[host."https://n.lan"]\nskip_verify = true\n',
    )
    (file.parent / "ca.crt").write_bytes((tmp_path / "authority/ca.crt").read_bytes())
    hosts = Hosts(Settings(etc=etc))
    first, second, _ = hosts.of("reg.lan", "x", PULL)
    assert (first.headers, first.connect_seconds) == ((("x-team", "one"),), 1.5)
    (endpoint,) = hosts.candidates(first)
    assert isinstance(endpoint.tls, ssl.SSLContext)
    assert endpoint.tls.get_ca_certs()
    assert [each.tls for each in hosts.candidates(second)] == [False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server = ", "cannot be read"),
        ('[host."https://a"]\ncapabilites = []', "unknown setting 'capabilites'"),
        ('[host."https://a"]\ncapabilities = ["fly"]', "unknown capability 'fly'"),
        ('[host."ftp://a"]', "is no address of a registry"),
        ('[host."https://a"]\ndial_timeout = "soon"', "invalid dial_timeout"),
        ('[host."https://a"]\nca = 3', "`ca` has to be a string"),
        ('[host."https://a".header]\nx = "a\\nb"', "cannot be a header"),
        ("host = 1", "`host` has to be a table"),
    ],
)
def test_a_mistake_is_named_with_its_file(etc: Path, text: str, words: str) -> None:
    path = write(etc, "containerd/certs.d/reg.lan/hosts.toml", text)
    with pytest.raises(InvalidArgument) as caught:
        Hosts(Settings(etc=etc)).of("reg.lan", "x", PULL)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_changes_is_read_again(etc: Path) -> None:
    hosts = Hosts(Settings(etc=etc))
    assert [host.address for host in hosts.of("reg.lan", "x", PULL)] == ["reg.lan"]
    path = write(etc, "containerd/certs.d/reg.lan/hosts.toml", '[host."https://a.lan"]\n')
    assert [host.address for host in hosts.of("reg.lan", "x", PULL)] == ["a.lan", "reg.lan"]
    path.unlink()
    assert [host.address for host in hosts.of("reg.lan", "x", PULL)] == ["reg.lan"]


# --- podman ---------------------------------------------------------------------------------------------------------

CONF = """
unqualified-search-registries = ["docker.io"]
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "mirror.lan/hub"
[[registry]]
prefix = "docker.io/library"
location = "blessed.lan:5000/base"
insecure = true
[[registry.mirror]]
location = "fast.lan"
pull-from-mirror = "digest-only"
[[registry]]
prefix = "*.bad.lan"
blocked = true
"""


def test_the_longest_prefix_holds_and_locations_replace_it(etc: Path) -> None:
    write(etc, "containers/registries.conf", CONF)
    assert urls(etc, "docker.io", "team/app", RESOLVE) == [
        "https://mirror.lan/v2/hub/team/app/manifests/1",
        "https://registry-1.docker.io/v2/team/app/manifests/1",
    ]
    assert urls(etc, "docker.io", "library/box", PULL) == [
        "https://fast.lan/v2/box/manifests/1",
        "https://blessed.lan:5000/v2/base/box/manifests/1",
    ]
    assert urls(etc, "docker.io", "library/box", RESOLVE) == ["https://blessed.lan:5000/v2/base/box/manifests/1"]
    assert urls(etc, "docker.io", "libraryx/box", PULL)[0] == "https://mirror.lan/v2/hub/libraryx/box/manifests/1"
    (insecure,) = Hosts(Settings(etc=etc)).of("docker.io", "library/box", RESOLVE)
    assert insecure.insecure


def test_a_drop_in_adds_and_a_blocked_registry_is_refused_with_the_file(etc: Path) -> None:
    write(etc, "containers/registries.conf", CONF)
    path = write(etc, "containers/registries.conf.d/50-more.conf", '[[registry]]\nprefix="quay.io"\nblocked=true\n')
    for domain, source in (("quay.io", path), ("very.bad.lan", etc / "containers/registries.conf")):
        with pytest.raises(PermissionDenied) as caught:
            Hosts(Settings(etc=etc)).of(domain, "x", PULL)
        assert str(source) in (caught.value.hint or "")


def test_a_scope_names_the_repository_as_its_server_does() -> None:
    host = Host(name="m", address="m", renamed=("library", "hub"))
    endpoint = Endpoint("m", "https://m", host=host)
    assert endpoint.scope("repository:library/box:pull") == "repository:hub/box:pull"
    assert endpoint.scope("registry:catalog:*") == "registry:catalog:*"
    assert endpoint.url("") == "https://m/v2/"


# --- docker ---------------------------------------------------------------------------------------------------------


def test_docker_s_mirrors_are_docker_hub_s_only(etc: Path) -> None:
    text = (
        '{"registry-mirrors": ["https://m.lan/", "http://n.lan:80"], "insecure-registries": ["reg.lan", "10.0.0.0/8"]}'
    )
    write(etc, "docker/daemon.json", text)
    assert urls(etc, "docker.io", "library/box", PULL) == [
        "https://m.lan/v2/library/box/manifests/1",
        "http://n.lan:80/v2/library/box/manifests/1",
        "https://registry-1.docker.io/v2/library/box/manifests/1",
    ]
    assert len(urls(etc, "quay.io", "x", PULL)) == 1
    assert len(urls(etc, "docker.io", "library/box", PUSH)) == 1
    hosts = Hosts(Settings(etc=etc))
    for domain, forms in (("reg.lan", 2), ("10.1.1.1:5000", 2), ("other.lan", 1)):
        (host,) = hosts.of(domain, "x", PULL)
        assert len(hosts.candidates(host)) == forms


def test_containerd_s_file_goes_before_podman_s_and_that_before_docker_s(etc: Path) -> None:
    write(etc, "docker/daemon.json", '{"registry-mirrors": ["https://d.lan"]}')
    assert Hosts(Settings(etc=etc)).rule("docker.io").source.endswith("daemon.json")
    write(etc, "containers/registries.conf", '[[registry]]\nlocation = "docker.io"\n')
    assert Hosts(Settings(etc=etc)).rule("docker.io").source.endswith("registries.conf")
    write(etc, "containerd/certs.d/docker.io/hosts.toml", "")
    assert Hosts(Settings(etc=etc)).rule("docker.io").source.endswith("hosts.toml")


def test_certificates_of_docker_s_directory_are_used(etc: Path, tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path / "authority")
    path = write(etc, "docker/certs.d/reg.lan:5000/ca.crt", "")
    path.write_bytes((tmp_path / "authority/ca.crt").read_bytes())
    hosts = Hosts(Settings(etc=etc))
    (host,) = hosts.of("reg.lan:5000", "x", PULL)
    assert isinstance(hosts.candidates(host)[0].tls, ssl.SSLContext)


def test_what_no_host_may_do_is_said(etc: Path) -> None:
    write(etc, "containerd/certs.d/reg.lan/hosts.toml", 'server = "https://reg.lan"\ncapabilities = ["pull"]\n')
    with pytest.raises(FailedPrecondition, match="may push"):
        Hosts(Settings(etc=etc)).of("reg.lan", "x", PUSH)
