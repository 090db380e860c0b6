"""The whole way from a signed archive to layers, and every link of the chain broken once."""

import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from kestrel.base.errors import DataLoss, FailedPrecondition, InvalidArgument, KestrelError, NotFound, Unauthenticated
from kestrel.images.bootstrap import Bootstrapped, Progress, Request, Variant, bootstrap, variant
from kestrel.images.bootstrap import release as releases
from kestrel.images.bootstrap.model import BuiltLayer
from kestrel.images.bootstrap.sources import Source

pytestmark = pytest.mark.skipif(shutil.which("gpgv") is None, reason="needs gpgv: apt-get install gpgv")

PLAIN = Variant(name="plain", image="kestrel/plain:bootstrap", summary="for tests", layers=((),))


def make(archive: Any, tmp_path: Path, *include: str, authorities: Path | None = None, run: str = "1") -> Bootstrapped:
    request = Request(variant=PLAIN, include=include, authorities=authorities, apt_root=archive.apt)
    return bootstrap(request, cache=tmp_path / f"cache{run}", target=tmp_path / f"out{run}")


def entries(layer: BuiltLayer) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(layer.path) as tar:
        return {info.name: info for info in tar}


def content(layer: BuiltLayer, name: str) -> bytes:
    with tarfile.open(layer.path) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_essential_packages_and_what_they_need_become_one_layer(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    made = make(archive, tmp_path)
    (layer,) = made.layers
    assert layer.packages == ("base-files=1.0", "base-passwd=1.0", "dash=1.0", "libc6=2.36-9")
    found = entries(layer)
    assert found["bin"].linkname == "usr/bin"
    assert found["lib64"].linkname == "usr/lib64"
    assert found["usr/bin/dash"].mode == 0o755
    assert found["usr/bin/sh"].linkname == "dash"
    assert found["tmp"].mode == 0o1777
    assert content(layer, "etc/passwd").startswith(b"root:*:0:0:")
    assert content(layer, "etc/profile") == b"PATH=/bin\n"
    assert list(found) == sorted(found)
    assert made.config["rootfs"]["diff_ids"] == [layer.digest]


def test_dpkg_finds_its_database(archive: Any, tmp_path: Path, new_file: Any) -> None:
    archive.add(
        "tool",
        {"etc/tool.conf": new_file(b"x\n"), "usr/bin/tool": new_file(b"tool", mode=0o755)},
        scripts={"conffiles": "/etc/tool.conf\n", "postinst": "#!/bin/sh\n", "triggers": "interest-noawait ldconfig\n"},
    )
    archive.publish()
    base, top = make(archive, tmp_path, "tool").layers
    status = content(top, "var/lib/dpkg/status").decode()
    assert status.count("Status: install ok installed") == 5
    assert "Conffiles:\n /etc/tool.conf 401b30e3b8b5d629635a5c613cdb7919" in status
    assert content(top, "var/lib/dpkg/info/tool.list") == b"/etc/tool.conf\n/usr/bin/tool\n"
    assert entries(top)["var/lib/dpkg/info/tool.postinst"].mode == 0o755
    assert content(top, "var/lib/dpkg/triggers/ldconfig") == b"tool/noawait\n"
    arch = status.split("Architecture: ")[1].split("\n")[0]
    assert f"var/lib/dpkg/info/libc6:{arch}.list" in entries(base)


def test_the_same_input_gives_the_same_digests(archive: Any, tmp_path: Path, new_file: Any) -> None:
    archive.add("more", {"usr/share/more": new_file(b"more")})
    archive.publish()
    first = make(archive, tmp_path, "more", run="1")
    os.environ["TZ"] = "Pacific/Auckland"
    try:
        second = make(archive, tmp_path, "more", run="2")
    finally:
        del os.environ["TZ"]
    assert [layer.digest for layer in first.layers] == [layer.digest for layer in second.layers]
    assert first.config == second.config


def test_what_is_included_is_a_layer_of_its_own_on_an_unchanged_base(
    archive: Any, tmp_path: Path, new_file: Any
) -> None:
    archive.add("more", {"usr/share/more": new_file(b"more")})
    archive.publish()
    plain = make(archive, tmp_path, run="1")
    base, top = make(archive, tmp_path, "more", run="2").layers
    assert base.digest == plain.layers[0].digest
    found = entries(top)
    assert "usr/share/more" in found
    assert found["usr"].isdir(), "directories on the way come along, with their modes"
    assert "usr/bin/dash" not in found


def test_no_file_is_newer_than_the_newest_packaged_one(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    (layer,) = make(archive, tmp_path).layers
    assert {info.mtime for info in entries(layer).values()} == {1_700_000_000}


def test_hard_links_stay_links_whatever_their_order(archive: Any, tmp_path: Path, new_file: Any) -> None:
    archive.add("perl", {"usr/bin/zperl": new_file(b"perl"), "usr/bin/perl5": new_file(hard="./usr/bin/zperl")})
    archive.publish()
    _, top = make(archive, tmp_path, "perl").layers
    assert content(top, "usr/bin/perl5") == b"perl"
    assert entries(top)["usr/bin/zperl"].linkname == "usr/bin/perl5"


@pytest.mark.parametrize("compression", ["zst", ""])
def test_other_compressions_are_understood(archive: Any, tmp_path: Path, new_file: Any, compression: str) -> None:
    archive.add("more", {"usr/share/more": new_file(b"more" * 1000)}, compression=compression)
    archive.publish()
    assert content(make(archive, tmp_path, "more").layers[1], "usr/share/more") == b"more" * 1000


def test_alternatives_are_linked_by_priority_without_running_scripts(
    archive: Any, tmp_path: Path, new_file: Any
) -> None:
    for name, priority in (("mawk", 5), ("gawk", 10)):
        script = f"#!/bin/sh\nupdate-alternatives --install /usr/bin/awk awk /usr/bin/{name} {priority} \\\n"
        script += f"  --slave /usr/bin/nawk nawk /usr/bin/{name}\ntouch /etc/owned\n"
        archive.add(name, {f"usr/bin/{name}": new_file(b"awk", mode=0o755)}, scripts={"postinst": script})
    archive.publish()
    made = make(archive, tmp_path, "mawk", "gawk")
    found = entries(made.layers[1])
    assert found["usr/bin/awk"].linkname == "/etc/alternatives/awk"
    assert found["etc/alternatives/awk"].linkname == "/usr/bin/gawk"
    assert found["usr/bin/nawk"].linkname == "/etc/alternatives/nawk"
    assert b"/usr/bin/mawk\n5\n" in content(made.layers[1], "var/lib/dpkg/alternatives/awk")
    assert "etc/owned" not in found
    assert any("gawk" in note for note in made.notes), "what a script did beyond that is said"


def test_pip_may_install_into_the_images_python(archive: Any, tmp_path: Path, new_file: Any) -> None:
    archive.add("python3-pip", {"usr/lib/python3.11/EXTERNALLY-MANAGED": new_file(b"[externally-managed]")})
    archive.publish()
    assert "usr/lib/python3.11/EXTERNALLY-MANAGED" not in entries(make(archive, tmp_path, "python3-pip").layers[1])


def test_the_bundle_holds_debians_authorities_and_the_machines_own(archive: Any, tmp_path: Path, new_file: Any) -> None:
    archive.add("ca-certificates", {"usr/share/ca-certificates/mozilla/A.crt": new_file(b"CERT A")})
    archive.publish()
    local = tmp_path / "local"
    local.mkdir()
    (local / "own.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nown\n")
    (local / "notes.txt").write_bytes(b"no certificate")
    made = make(archive, tmp_path, "ca-certificates", authorities=local)
    bundle = content(made.layers[1], "etc/ssl/certs/ca-certificates.crt")
    assert bundle == b"CERT A\n-----BEGIN CERTIFICATE-----\nown\n"
    assert any("own.crt" in note for note in made.notes)


# -- dependencies ----------------------------------------------------------------------------------------------------


def test_alternatives_virtual_packages_and_versions_are_resolved(archive: Any, tmp_path: Path) -> None:
    archive.add("app", fields="Depends: missing | mta, lib (>= 2)\n")
    archive.add("exim", fields="Provides: mta\nPriority: standard\n")
    archive.add("postfix", fields="Provides: mta\nPriority: optional\n")
    archive.add("lib", version="1.0")
    archive.add("lib", version="2.0")
    archive.publish()
    assert make(archive, tmp_path, "app").layers[1].packages == ("app=1.0", "exim=1.0", "lib=2.0")


def test_a_named_package_is_preferred_to_the_default_provider(archive: Any, tmp_path: Path) -> None:
    archive.add("app", fields="Depends: exim | mta\n")
    archive.add("exim", fields="Provides: mta\n")
    archive.add("postfix", fields="Provides: mta\n")
    archive.publish()
    assert make(archive, tmp_path, "app", "postfix").layers[1].packages == ("app=1.0", "postfix=1.0")


def test_a_certain_version_can_be_asked_for(archive: Any, tmp_path: Path) -> None:
    archive.add("lib", version="1.0")
    archive.add("lib", version="2.0")
    archive.publish()
    assert make(archive, tmp_path, "lib=1.0").layers[1].packages == ("lib=1.0",)
    with pytest.raises(NotFound, match=r"lib has no version 3") as caught:
        make(archive, tmp_path, "lib=3")
    assert "2.0, 1.0" in str(caught.value.hint)


def test_an_unknown_package_is_named_with_the_nearest_one(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    with pytest.raises(NotFound, match="base-flies") as caught:
        make(archive, tmp_path, "base-flies")
    assert caught.value.hint == "did you mean base-files?"


@pytest.mark.parametrize("name", ["a b", "../x", "x;y"])
def test_what_is_no_package_name_is_refused(archive: Any, tmp_path: Path, name: str) -> None:
    archive.publish()
    with pytest.raises(InvalidArgument, match="not a package name"):
        make(archive, tmp_path, name)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("Depends: libc6 (>= 3)\n", r"app=1.0 needs libc6 \(>= 3\)"),
        ("Depends: nowhere\n", "app=1.0 needs nowhere"),
        ("Conflicts: dash\n", "app=1.0 and dash=1.0|dash=1.0 and app=1.0"),
        ("Breaks: libc6 (<< 9)\n", "libc6=2.36-9"),
    ],
)
def test_packages_that_do_not_fit_are_named(archive: Any, tmp_path: Path, fields: str, words: str) -> None:
    archive.add("app", fields=fields)
    archive.publish()
    with pytest.raises(FailedPrecondition, match=words):
        make(archive, tmp_path, "app")


# -- the chain of trust ----------------------------------------------------------------------------------------------


def test_a_signature_by_a_stranger_is_refused(archive: Any, tmp_path: Path, stranger: Any) -> None:
    archive.publish(stranger)
    with pytest.raises(Unauthenticated, match=r"signature of .* is not good"):
        make(archive, tmp_path)


def test_a_changed_index_is_refused(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    path = archive.root / "dists" / "test" / "InRelease"
    path.write_bytes(path.read_bytes().replace(b"Codename: test", b"Codename: evil"))
    with pytest.raises(Unauthenticated):
        make(archive, tmp_path)


def test_text_outside_the_signature_is_not_believed(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    path = archive.root / "dists" / "test" / "InRelease"
    signed = path.read_bytes()
    path.write_bytes(b"Origin: Evil\nSHA256:\n 00 0 main/evil\n" + signed)
    source = Source(uri="file:/x", suite="test", components=("main",), signed_by=(f"{archive.apt}/test.gpg",))
    try:
        assert b"Evil" not in releases.verify(source, path.read_bytes())
    except Unauthenticated:
        pass  # refusing it altogether is as good


def test_a_changed_package_list_is_refused(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    path = next(archive.root.rglob("Packages.xz"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataLoss, match=r"Packages\.xz"):
        make(archive, tmp_path)


def test_a_changed_package_is_refused_by_name_and_not_kept(archive: Any, tmp_path: Path, new_file: Any) -> None:
    path = archive.add("more", {"usr/share/more": new_file(b"more")})
    archive.publish()
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"x")
    with pytest.raises(DataLoss, match=r"more_1\.0"):
        make(archive, tmp_path, "more")
    path.write_bytes(good)
    assert make(archive, tmp_path, "more").layers[1].packages == ("more=1.0",)


def test_an_archive_that_is_not_debians_is_left_out_aloud(archive: Any, tmp_path: Path) -> None:
    archive.release_fields["Origin"] = "Somebody"
    archive.publish()
    with pytest.raises(FailedPrecondition, match="Somebody's archive"):
        make(archive, tmp_path)


def test_one_bad_source_does_not_spoil_the_good_one_but_is_told(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    archive.configure(
        f"\nTypes: deb\nURIs: file:{tmp_path}/nowhere\nSuites: x\nComponents: main\nSigned-By: {archive.apt}/test.gpg\n"
    )
    made = make(archive, tmp_path)
    assert any("nowhere" in note or "cannot reach" in note for note in made.notes)


def test_an_expired_index_is_refused(archive: Any, key: Any) -> None:
    from datetime import UTC, datetime

    source = Source(uri="file:/x", suite="test", components=("main",), signed_by=(f"{archive.apt}/test.gpg",))
    text = "Origin: Debian\nDate: Sat, 04 Jul 2026 10:00:00 UTC\nValid-Until: Sat, 11 Jul 2026 10:00:00 UTC\nSHA256:\n"
    signed = key.clearsign(text)
    with pytest.raises(DataLoss, match="expired"):
        releases.read(source, signed, now=datetime(2026, 8, 1, tzinfo=UTC))
    assert releases.read(source, signed, now=datetime(2026, 7, 5, tzinfo=UTC)).origin == "Debian"
    assert releases.read(source, signed, now=None).origin == "Debian"


def test_an_armored_keyring_works_too(archive: Any, tmp_path: Path, key: Any) -> None:
    import base64

    body = base64.encodebytes(key.keyring()).decode()
    text = f"-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: x\n\n{body}=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"
    (archive.apt / "test.gpg").write_text(text)
    archive.publish()
    assert make(archive, tmp_path).layers


def test_a_missing_keyring_is_named(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    (archive.apt / "test.gpg").unlink()
    with pytest.raises(FailedPrecondition, match=r"test\.gpg"):
        make(archive, tmp_path)


def test_a_path_that_leaves_the_root_is_refused(archive: Any, tmp_path: Path, new_file: Any) -> None:
    archive.add("evil", {"../../etc/shadow": new_file(b"evil")})
    archive.publish()
    with pytest.raises(DataLoss, match="leaves the root"):
        make(archive, tmp_path, "evil")


def test_a_file_that_is_no_package_is_refused_by_name(archive: Any, tmp_path: Path) -> None:
    import hashlib

    path = archive.add("more")
    path.write_bytes(b"!<arch>\nrubbish" * 20)
    data = path.read_bytes()
    last = archive._stanzas[-1].split("Size:")[0]
    archive._stanzas[-1] = f"{last}Size: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
    archive.publish()
    with pytest.raises(DataLoss, match=r"more=1\.0 is not a Debian package"):
        make(archive, tmp_path, "more")


# -- the caller ------------------------------------------------------------------------------------------------------


def test_a_second_run_fetches_nothing_it_has(archive: Any, tmp_path: Path) -> None:
    archive.publish()
    make(archive, tmp_path)
    shutil.rmtree(archive.root / "pool")
    seen: list[Progress] = []
    request = Request(variant=PLAIN, authorities=None, apt_root=archive.apt)
    bootstrap(request, cache=tmp_path / "cache1", target=tmp_path / "out2", report=seen.append)
    assert {p.status for p in seen if p.id.endswith(".deb")} == {"cached"}


def test_what_the_report_raises_ends_the_work(archive: Any, tmp_path: Path) -> None:
    archive.publish()

    class CancelledError(KestrelError):
        pass

    def cancel(progress: Progress) -> None:
        if progress.id.endswith(".deb"):
            raise CancelledError("enough")

    request = Request(variant=PLAIN, authorities=None, apt_root=archive.apt)
    with pytest.raises(CancelledError):
        bootstrap(request, cache=tmp_path / "cache", target=tmp_path / "out", report=cancel)


def test_a_variant_is_found_by_its_word() -> None:
    assert variant("").name == "debian"
    assert variant("python").image == "kestrel/python:bootstrap"
    with pytest.raises(InvalidArgument) as caught:
        variant("pyton")
    assert caught.value.hint == "did you mean python?"
