"""Which packages belong together: a closed set under Depends and Pre-Depends, free of Conflicts and Breaks.

Breadth first, without going back: each unmet dependency takes what is chosen already, else its first alternative that
exists and is in nobody's way, as debootstrap and apt do in the plain case. The result is then checked as a whole, so
a wrong guess is an error that names both packages and never a broken image. Recommends are not followed.
"""

from collections import deque
from collections.abc import Iterable

from kestrel.base.errors import FailedPrecondition
from kestrel.images.bootstrap.catalog import Catalog, Package
from kestrel.images.bootstrap.control import Group


def resolve(catalog: Catalog, wanted: Iterable[str], have: Iterable[Package] = ()) -> list[Package]:
    """Return the packages to add, by name, so that `wanted` work on top of `have`.

    Raises NotFound for an unknown name and FailedPrecondition when no set fits.
    """
    chosen = {package.name: package for package in have}
    before = set(chosen)
    queue: deque[tuple[Package, Group]] = deque()

    def take(package: Package) -> None:
        chosen[package.name] = package
        queue.extend((package, group) for group in package.depends)

    # All that was named comes first: a named package satisfies alternatives before a default is taken.
    for package in [catalog.get(name) for name in wanted]:
        if package.name not in chosen:
            take(package)
    while queue:
        who, group = queue.popleft()
        if not _met(group, chosen.values()):
            take(_choose(catalog, who, group, chosen))
    _check(chosen.values())
    return [chosen[name] for name in sorted(chosen) if name not in before]


def _met(group: Group, packages: Iterable[Package]) -> bool:
    return any(package.meets(relation) for package in packages for relation in group)


def _choose(catalog: Catalog, who: Package, group: Group, chosen: dict[str, Package]) -> Package:
    tried = []
    for relation in group:
        for package in catalog.candidates(relation):
            clash = next((c for c in chosen.values() if _clash(package, c)), None)
            if package.name not in chosen and clash is None:
                return package
            tried.append(f"{package} conflicts with {clash or chosen[package.name]}")
    wanted = " | ".join(str(relation) for relation in group)
    raise FailedPrecondition(
        f"{who} needs {wanted}, and " + ("; ".join(tried) if tried else "the sources offer no such package"),
        hint=None if tried else "is the suite's main component among the machine's apt sources?",
    )


def _clash(one: Package, other: Package) -> bool:
    if one.name == other.name:
        return False  # a package may conflict with what it provides itself (Policy 7.6.2)
    return any(other.meets(r) for r in one.conflicts) or any(one.meets(r) for r in other.conflicts)


def _check(packages: Iterable[Package]) -> None:
    everything = list(packages)
    for package in everything:
        for group in package.depends:
            if not _met(group, everything):
                raise FailedPrecondition(
                    f"{package} needs {' | '.join(map(str, group))}, which nothing chosen provides"
                )
        clash = next((other for other in everything if _clash(package, other)), None)
        if clash:
            raise FailedPrecondition(f"{package} and {clash} cannot be in one image: they conflict")
