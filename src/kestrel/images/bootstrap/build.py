"""From package names to layers: the whole way, in order.

sources -> InRelease (gpgv) -> Packages (sha256) -> dependencies -> .deb files (sha256) -> trees -> tars. Every step
takes values and gives values; only `fetch` talks to the network and only `Tree.write` makes files that stay.
"""

import gzip
import lzma
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kestrel.base.errors import DataLoss, FailedPrecondition, InvalidArgument, KestrelError
from kestrel.base.files import private_directory
from kestrel.images.bootstrap import release as releases
from kestrel.images.bootstrap import sources as apt
from kestrel.images.bootstrap.catalog import Catalog, Package, names
from kestrel.images.bootstrap.deb import Unpacked, unpack
from kestrel.images.bootstrap.fetch import Fetcher, Wanted
from kestrel.images.bootstrap.finish import EXCLUDED, Installed, finish, unhandled
from kestrel.images.bootstrap.model import DEBIAN, Bootstrapped, BuiltLayer, Progress, Report, Variant
from kestrel.images.bootstrap.release import Release
from kestrel.images.bootstrap.resolve import resolve
from kestrel.images.bootstrap.tree import Tree

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MACHINES = {"amd64": "amd64", "arm64": "arm64", "armhf": "arm", "i386": "386", "ppc64el": "ppc64le"}
LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")


def _quiet(_: Progress) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to make. `include` adds packages as a layer of their own on those of the variant.

    `authorities` is a directory of certificate authorities (`*.crt`) that the image shall trust beside Debian's:
    behind a company's proxy the containers need the machine's own, or nothing can be fetched over TLS. None adds none.
    """

    variant: Variant = DEBIAN
    include: Sequence[str] = ()
    authorities: Path | None = LOCAL_AUTHORITIES
    apt_root: Path = field(default=Path("/etc/apt"))


def bootstrap(request: Request, *, cache: Path, target: Path, report: Report = _quiet) -> Bootstrapped:
    """Make a base image out of Debian packages; blocks for seconds, so call it in a thread.

    Verified downloads are kept in `cache`; the layers' tars are written into `target`. `report` hears of progress,
    from several threads but one at a time; what it raises ends the work. The same packages and the same request give
    the same digests.

    Raises FailedPrecondition (no source, gpgv missing, packages that do not fit), NotFound (unknown package, with the
    nearest name), Unauthenticated (a signature is not good), DataLoss (a file is not what its index promises),
    Unavailable (the archive cannot be reached).
    """
    lock = threading.Lock()

    def serialised(progress: Progress) -> None:
        with lock:
            report(progress)

    private_directory(target)
    config = apt.read(request.apt_root)
    fetcher = Fetcher(cache, config.proxies, serialised)
    found, notes = _releases(config, fetcher)
    catalog = _catalog(found, config.architecture, fetcher)
    plan = _plan(catalog, request)
    debs = _fetch(plan, fetcher)
    with tempfile.TemporaryDirectory(prefix="unpack-", dir=target) as work:
        unpacked = _unpack(plan, debs, Path(work), serialised)
        trusted = _authorities(request.authorities)
        trees = _trees(plan, unpacked, [r.source for r in found], trusted)
        layers = _write(trees, plan, target, serialised)
        notes += _notes(trees[-1][1], trusted)
    return Bootstrapped(
        name=request.variant.image,
        layers=layers,
        config=_config(request.variant, config.architecture, trees[-1][0].newest, layers),
        sources=tuple(str(r.source) for r in found),
        notes=tuple(notes),
    )


def _releases(config: apt.AptConfig, fetcher: Fetcher) -> tuple[list[Release], list[str]]:
    """Fetch and verify each suite's index. One archive that fails is told and left out; all failing is an error."""
    found: list[Release] = []
    notes = [f"skipped a package source: {reason}" for reason in config.skipped]
    failures: list[KestrelError] = []
    now = datetime.now(UTC) if config.check_valid_until else None
    for source in config.sources:
        try:
            signed = fetcher.text(f"{source.uri}/dists/{source.suite}/InRelease", f"{source.suite} InRelease")
            release = releases.read(source, signed, now=now)
        except KestrelError as error:
            failures.append(error)
            notes.append(f"skipped a package source: {error}")
            continue
        if release.origin == "Debian":
            found.append(release)
        else:
            notes.append(
                f"skipped a package source: {source} is {release.origin or 'somebody'}'s archive, not Debian's"
            )
    if found:
        return found, notes
    if failures:
        raise failures[0]
    raise FailedPrecondition(
        "no Debian package source can be used: " + "; ".join(notes), hint="is a Debian archive among the apt sources?"
    )


def _catalog(found: Sequence[Release], arch: str, fetcher: Fetcher) -> Catalog:
    indexes: list[tuple[Release, str]] = []
    for release in found:
        for component in release.source.components:
            stem = f"{component}/binary-{arch}/Packages"
            listed = next((f"{stem}{end}" for end in (".xz", ".gz") if f"{stem}{end}" in release.files), None)
            if listed:
                indexes.append((release, listed))
    wanted = [
        Wanted(uri=r.uri(path), sha256=r.files[path][0], size=r.files[path][1], label=f"{r.source.suite} {path}")
        for r, path in indexes
    ]
    paths = fetcher.all(wanted)
    catalog = Catalog(arch)
    for (release, path), item in zip(indexes, wanted, strict=True):
        try:
            opened = lzma.open if path.endswith(".xz") else gzip.open
            with opened(paths[item.sha256], "rt", encoding="utf-8", errors="replace") as file:
                catalog.add(file.read(), release.source.uri)
        except (lzma.LZMAError, OSError, EOFError) as error:
            raise DataLoss(f"{item.label} cannot be decompressed: {error}") from error
    if not len(catalog):
        raise FailedPrecondition(f"the package sources offer nothing for {arch}")
    return catalog


def _plan(catalog: Catalog, request: Request) -> list[list[Package]]:
    """Return the packages of each layer, bottom first."""
    layers = [list(layer) for layer in request.variant.layers]
    if request.variant.essential:
        layers[0] += catalog.essential()
        # Debian 12 asks for `usrmerge | usr-is-merged`: the first is a converter in Perl, the second says it is done.
        layers[0] += ["usr-is-merged"] if catalog.named("usr-is-merged") else []
    if extra := names(request.include):
        layers.append(list(extra))
    have: list[Package] = []
    plan = []
    for wanted in layers:
        added = resolve(catalog, names(wanted), have)
        have += added
        plan.append(added)
    return [added for added in plan if added]


def _fetch(plan: Sequence[Sequence[Package]], fetcher: Fetcher) -> dict[str, Path]:
    wanted = []
    for package in (p for layer in plan for p in layer):
        path, sha256 = package.fields.get("filename", ""), package.fields.get("sha256", "")
        if not path or ".." in path.split("/") or len(sha256) != 64 or not package.fields.get("size", "").isdigit():
            raise DataLoss(f"the index entry of {package} has no usable file name, size or sha256")
        label = path.rpartition("/")[2]
        wanted.append(
            Wanted(uri=f"{package.base}/{path}", sha256=sha256, size=int(package.fields["size"]), label=label)
        )
    return fetcher.all(wanted)


def _unpack(
    plan: Sequence[Sequence[Package]], debs: Mapping[str, Path], work: Path, report: Report
) -> dict[str, Unpacked]:
    packages = [package for layer in plan for package in layer]

    def one(numbered: tuple[int, Package]) -> tuple[str, Unpacked]:
        number, package = numbered
        done = unpack(debs[package.fields["sha256"]], str(package), work / f"{package.name}.tar")
        report(Progress(id=package.name, status="unpacking", current=number + 1, total=len(packages)))
        return package.name, done

    # lzma and zstandard work without the interpreter's lock, so threads do decompress side by side.
    with ThreadPoolExecutor(2, thread_name_prefix="kestrel-unpack") as pool:
        return dict(pool.map(one, enumerate(packages)))


def _trees(
    plan: Sequence[Sequence[Package]],
    unpacked: Mapping[str, Unpacked],
    sources: Sequence[apt.Source],
    trusted: Mapping[str, bytes],
) -> list[tuple[Tree, list[Installed]]]:
    """Return one finished tree for each layer, each with all the packages up to it."""
    trees = []
    have: list[Package] = []
    for layer in plan:
        have += layer
        tree = Tree()
        installed = []
        # base-files first: it says how the top directories look.
        for package in sorted(have, key=lambda p: (p.name != "base-files", p.name)):
            done = unpacked[package.name]
            installed.append(Installed(package=package, control=done.control, names=tree.lay(done.data, EXCLUDED)))
        finish(tree, installed, sources, trusted)
        trees.append((tree, installed))
    return trees


def _write(
    trees: Sequence[tuple[Tree, list[Installed]]], plan: Sequence[Sequence[Package]], target: Path, report: Report
) -> tuple[BuiltLayer, ...]:
    layers = []
    below: Tree | None = None
    for number, ((tree, _), packages) in enumerate(zip(trees, plan, strict=True)):
        report(Progress(id=f"layer {number + 1}", status="writing", current=number + 1, total=len(plan)))
        path = target / f"layer{number}.tar"
        digest, size = tree.write(path, below)
        layers.append(BuiltLayer(path=path, digest=digest, size=size, packages=tuple(str(p) for p in packages)))
        below = tree
    return tuple(layers)


def _authorities(directory: Path | None) -> dict[str, bytes]:
    """Return the machine's own certificate authorities by file name; see update-ca-certificates(8)."""
    if directory is None or not directory.is_dir():
        return {}
    found = {}
    for path in sorted(directory.rglob("*.crt")):
        content = path.read_bytes()
        if b"-----BEGIN CERTIFICATE-----" in content:
            found[path.name] = content
    return found


def _notes(installed: Iterable[Installed], trusted: Mapping[str, bytes]) -> list[str]:
    items = list(installed)
    notes = []
    if trusted and any(item.package.name == "ca-certificates" for item in items):
        notes.append(f"the image trusts this machine's own certificate authorities: {', '.join(sorted(trusted))}")
    left = unhandled(items)
    if left:
        notes.append(f"maintainer scripts were not run; these packages may miss some set-up: {', '.join(left)}")
    return notes


def _config(variant: Variant, arch: str, newest: int, layers: Sequence[BuiltLayer]) -> dict[str, Any]:
    """Return the image configuration (image-spec config.md); its times are the packages', so it is reproducible."""
    created = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if not layers:
        raise InvalidArgument("an image needs at least one package")
    return {
        "architecture": _MACHINES.get(arch, arch),
        **({"variant": "v7"} if arch == "armhf" else {}),
        "os": "linux",
        "created": created,
        "config": {
            "Env": [f"PATH={_PATH}", *variant.env],
            "Cmd": list(variant.command),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        "history": [
            {"created": created, "created_by": f"kestrel image bootstrap # {len(layer.packages)} Debian packages"}
            for layer in layers
        ],
    }
