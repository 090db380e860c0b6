"""BuildKit's integration tests: its Go functions are carried out here, and where they build, Kestrel does.

What a test asserts of files, images and caches is what its authors expect of a builder. Of an error only that there
is one: the sentences are our own.
"""

import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder_judges.buildkit_client import Builder, Uploads
from builder_judges.buildkit_reasons import DIFFERENT, LEFT_OUT, REASONS
from builder_judges.go.library import PACKAGES
from builder_judges.go.library.data import Digest, tar_map
from builder_judges.go.library.files import os as os_package
from builder_judges.go.library.files import unix_mode
from builder_judges.go.library.network import Group
from builder_judges.go.library.testify import Testing
from builder_judges.go.suite import Suite
from builder_judges.go.values import Error, Failed, Native, Package, Skipped, Struct, Type, Unsupported
from builder_judges.kestrel_builds import Kestrel, blob
from builder_judges.report import Report, Skip

BASES = tuple(
    "busybox busybox:latest busybox:stable-musl alpine alpine:latest docker.io/library/busybox:latest".split()
)


class Directory(Native):
    """What `integration.Tmpdir` makes."""

    def __init__(self, t: Testing, *appliers: Callable[[str], None]) -> None:
        self.Name = t.TempDir()
        for apply in appliers:
            apply(self.Name)


def _file(name: str, data: "bytes | None", mode: int) -> Callable[[str], None]:
    return lambda root: os_package.names["WriteFile"](f"{root}/{name}", data or b"", mode) and None


def _directory(name: str, mode: int) -> Callable[[str], None]:
    def apply(root: str) -> None:
        os.makedirs(f"{root}/{name}", exist_ok=True)
        os.chmod(f"{root}/{name}", unix_mode(mode))

    return apply


def _socket(name: str, mode: int) -> Callable[[str], None]:
    def apply(root: str) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"{root}/{name}")
        os.chmod(f"{root}/{name}", mode)

    return apply


def _at(action: Callable[..., None], *rest: Any) -> Callable[[str], None]:
    return lambda root: action(root, *rest)


FSTEST = Package(
    "fstest",
    {
        "CreateFile": _file,
        "CreateDir": _directory,
        "CreateSocket": _socket,
        "Symlink": lambda target, name: _at(lambda root: os.symlink(target, f"{root}/{name}")),
        "Link": lambda old, new: _at(lambda root: os.link(f"{root}/{old}", f"{root}/{new}")),
        "Chmod": lambda name, mode: _at(lambda root: os.chmod(f"{root}/{name}", unix_mode(mode))),
        "Chown": lambda name, uid, gid: _at(lambda root: os.chown(f"{root}/{name}", uid, gid)),
        "MkdirAll": _directory,
        "Lchtimes": lambda name, a, m: _at(
            lambda root: os.utime(f"{root}/{name}", ns=(a.UnixNano(), m.UnixNano()), follow_symlinks=False)
        ),
    },
)


def _not_windows(_: Any, platform: str, *words: Any) -> None:
    if platform != "windows":
        raise Skipped(f"not on {platform}")


def _read_images(_: Any, layout: Path, descriptor: dict[str, Any]) -> tuple[Any, Any]:
    manifest = json.loads(blob(layout, descriptor["digest"]))
    raw = [blob(layout, layer["digest"]) for layer in manifest["layers"]]
    layers = []
    for layer, data in zip(manifest["layers"], raw, strict=True):
        found, error = tar_map(data, layer["mediaType"].endswith("gzip"))
        if error is not None:
            return None, error
        layers.append(found)
    image = json.loads(blob(layout, manifest["config"]["digest"]))
    info = Struct(
        "ImageInfo", {"Desc": descriptor, "Manifest": manifest, "Img": image, "Layers": layers, "LayersRaw": raw}
    )
    return _Images(descriptor, info), None


class _Store(Native):
    """containerd's client, as far as tests read an image's configuration with it."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    def ImageService(self) -> "_Store":
        return self

    def Get(self, _: Any, name: str) -> tuple[Any, Any]:
        descriptor, layout, error = self._builder.provider(name)
        return _Stored(descriptor, layout), error

    def ContentStore(self) -> "Path | None":
        return self._builder.last

    def Close(self) -> None:
        return None


class _Stored(Native):
    def __init__(self, descriptor: dict[str, Any], layout: Path) -> None:
        self.Target = descriptor
        self._manifest = json.loads(blob(layout, descriptor["digest"]))

    def Config(self, *_: Any) -> tuple[Any, Any]:
        return self._manifest["config"], None


def _sources(error: Error) -> list[Struct]:
    """Where an error points: the lines that our message marks."""
    lines = [int(n) for n in re.findall(r"^ *(\d+) \| >>>", error.text, re.MULTILINE)]
    named = re.search(r"^  (\S+?):\d+", error.text, re.MULTILINE)
    ranges = [Struct("Range", {"Start": Struct("Position", {"Line": line})}) for line in lines]
    name = named[1] if named else ""
    info = Struct("Info", {"Filename": name, "Language": "Dockerfile", "Data": error.kind, "Definition": "none"})
    return [Struct("Source", {"Ranges": ranges, "Info": info})]


class _Images(Native):
    def __init__(self, descriptor: dict[str, Any], image: Struct) -> None:
        self.Desc, self.Images, self._image = descriptor, [image], image

    def Find(self, _: str) -> Struct:
        return self._image


ENTITLEMENTS = {
    "EntitlementSecurityInsecure": "security.insecure",
    "EntitlementNetworkHost": "network.host",
}


def packages(builder: Builder) -> dict[str, Package]:
    """What the tests import, beyond Go's own library."""

    def read_image(context: Any, layout: Path, descriptor: dict[str, Any]) -> tuple[Any, Any]:
        found, error = _read_images(context, layout, descriptor)
        return (found.Images[0] if found else None), error

    return {
        **PACKAGES,
        "fstest": FSTEST,
        "integration": Package(
            "integration",
            {"Tmpdir": Directory, "UnixOrWindows": lambda unix, _: unix, "SkipOnPlatform": _not_windows},
        ),
        "workers": Package(
            "workers", {"CheckFeatureCompat": lambda *_: None, "IsTestDockerd": lambda: False, **_features()}
        ),
        "client": Package(
            "client",
            {
                "New": lambda *_: (builder, None),
                **{f"Exporter{name}": name.lower() for name in ("Local", "Tar", "OCI", "Docker", "Image")},
                **{name: Type(f"client.{name}") for name in ("SolveOpt", "ExportEntry")},
            },
        ),
        "dockerui": Package(
            "dockerui",
            {
                "DefaultLocalNameDockerfile": "dockerfile",
                "DefaultLocalNameContext": "context",
                "DefaultDockerfileName": "Dockerfile",
            },
        ),
        "secretsprovider": Package("secretsprovider", {"FromMap": lambda values: ("secrets", values)}),
        "rsa": Package("rsa", {"GenerateKey": lambda *_: (None, None)}),
        "rand": Package("rand", {"Reader": None}),
        "x509": Package("x509", {"MarshalPKCS1PrivateKey": lambda _: b""}),
        "pem": Package("pem", {"EncodeToMemory": lambda _: b"", "Block": Type("pem.Block")}),
        "sshprovider": Package("sshprovider", {"NewSSHAgentProvider": lambda values: (("ssh", values), None)}),
        "contentutil": Package("contentutil", {"ProviderFromRef": builder.provider}),
        "testutil": Package("testutil", {"ReadTarToMap": tar_map, "ReadImages": _read_images, "ReadImage": read_image}),
        "local": Package("local", {"NewStore": lambda path: (path, None)}),
        "platforms": Package(
            "platforms",
            {
                "Default": lambda: None,
                "Format": lambda _: "linux/amd64",
                "FormatAll": lambda _: "linux/amd64",
                "DefaultSpec": dict,
            },
        ),
        "specs-go": Package("ocispecs", {"ImageIndexFile": "index.json", "ImageBlobsDir": "blobs"}),
        "content": Package("content", {"ReadBlob": lambda _, store, found: (blob(store, found["digest"]), None)}),
        "namespaces": Package("namespaces", {"WithNamespace": lambda *_: None}),
        "entitlements": Package("entitlements", ENTITLEMENTS),
        "errgroup": Package("errgroup", {"WithContext": lambda _: (Group(builder._suite.apply), None)}),
        "uploadprovider": Package("uploadprovider", {"New": Uploads}),
        "errdefs": Package("errdefs", {"Sources": _sources}),
        "iohelper": Package("iohelper", {}),
        "subrequests": Package("subrequests", {"RequestType": str}),
    }


def _features() -> dict[str, str]:
    names = "OCIExporter DirectPush SourceDateEpoch ImageExporter MultiPlatform FrontendOutline CacheExport OCILayout"
    more = "CacheBackendLocal CacheBackendRegistry CacheImport FrontendTargets MergeDiff Provenance SBOM InfoReporting"
    return {f"Feature{name}": name for name in f"{names} {more} SecurityMode CacheBackendInline".split()}


class Sandbox(Native):
    """`integration.Sandbox`."""

    def __init__(self, builder: Builder, registry: str) -> None:
        self._builder = builder
        self._registry = registry

    def Context(self) -> None:
        return None

    Address = Context

    def ContainerdAddress(self) -> str:
        """What the tests look up in containerd's store is looked up in what was built."""
        return "kestrel"

    def Rootless(self) -> bool:
        return False

    def Name(self) -> str:
        return "kestrel"

    def Value(self, name: str) -> Any:
        """The host's network may be used; RUN --security=insecure is refused, as where the entitlement is not given."""
        granted = {"network.host": "networkHostGranted", "security.insecure": "securityInsecureDenied"}
        return self._builder.named(granted.get(name, ""))

    def Snapshotter(self) -> str:
        return "overlayfs"

    def Cmd(self, line: str) -> Any:
        return self._builder.command(line)

    def NewRegistry(self) -> tuple[str, None]:
        return self._registry, None


def _manifest_with_times(_: Any, data: bytes) -> dict[str, Any]:
    """Read the manifest out of an archive. BuildKit notes at a layer which time it clamped the files to; we look."""
    packed, _error = tar_map(data, False)
    index = json.loads(packed["index.json"].fields["Data"])

    def of(descriptor: Any) -> bytes:
        found: bytes = packed[f"blobs/{descriptor['digest'].replace(':', '/')}"].fields["Data"]
        return found

    manifest: dict[str, Any] = json.loads(of(index["manifests"][0]))
    for layer in manifest["layers"]:
        files, _error = tar_map(of(layer), layer["mediaType"].endswith("gzip"))
        newest = max((item.fields["Header"].ModTime.Unix() for item in files.values()), default=0)
        layer["annotations"] = {"buildkit/rewritten-timestamp": str(newest)}
    return manifest


def _fill(template: str, values: Struct) -> tuple[str, None]:
    fields = values.fields if isinstance(values, Struct) else values
    return re.sub(r"{{\.(\w+)}}", lambda m: str(fields[m[1]]), template), None


def builds(root: Path, only: "set[str] | None" = None) -> Report:
    """Judge every integration test. `only` names a few."""
    report = Report("buildkit integration", reasons=DIFFERENT)
    files = sorted((root / "frontend/dockerfile").glob("*_test.go"))
    with Kestrel.make(BASES) as kestrel:
        for file in files:
            probe = Suite({}, {})
            for name in [n for n in probe.load(file) if n.startswith("test")]:
                if only and name not in only:
                    continue
                known = LEFT_OUT.get(file.name) or REASONS.get(name)
                if known and not only:
                    report.skip(name, known[1], known[0])
                else:
                    _case(report, kestrel, files, name)
    return report


def _case(report: Report, kestrel: Kestrel, files: list[Path], name: str) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="ktest-", dir="/var/tmp"))
    suite = Suite({}, {})
    builder = Builder(kestrel, suite, scratch)
    suite.packages = packages(builder)
    suite.text_type = Digest
    suite.universe.names.update(
        {
            "getFrontend": lambda *_: builder,
            "ensurePruneAll": lambda *_: builder.Prune(),
            "fixedWriteCloser": lambda sink: sink,
            "newContainerd": lambda _: (_Store(builder), None),
            "applyTemplate": _fill,
            "readOCIManifest": _manifest_with_times,
            "unmarshalOutline": lambda result: (result.fields["Metadata"]["result.json"], None),
            "unmarshalTargets": lambda result: (result.fields["Metadata"]["result.json"], None),
        }
    )
    t = Testing(suite.apply)
    try:
        for file in files:
            suite.load(file)
        suite.call(name, t, Sandbox(builder, kestrel.instance.registry))
        report.passed.append(name)
    except Failed as failure:
        report.failed.append((name, f"line {suite.line}: {failure}"))
    except Unsupported as unsupported:
        report.skip(name, f"it asks for {unsupported}", Skip.LACKING, f"line {suite.line}")
    except Skipped as skipped:
        report.skip(name, f"it skips itself: {skipped}")
    except AssertionError as hung:
        report.failed.append((name, str(hung)))
    except Exception as error:  # noqa: BLE001 - the walk met something it has no words for
        seen = f"line {suite.line}: {type(error).__name__}: {error}"
        report.skip(name, "it is beyond what is carried out here", Skip.LACKING, seen)
    finally:
        t.finish()
        shutil.rmtree(scratch, ignore_errors=True)
