"""The modules of a program in one file.

Python keeps a file of code for each module; to find, check and read them all takes a command longer than to run them.
A pack holds the code of all that a program loads, and the time and the size of each source, as Python's own files do.
When one of the sources is another by now, the pack counts for nothing, and is written anew.
"""

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

    Entry = tuple[str, bool, tuple[int, int], CodeType]  # source, whether it is a package's, its time and size, code


class Pack:
    """A finder and loader of modules (`sys.meta_path`), from a file that need not exist."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._earlier = frozenset(sys.modules)
        self._entries = _read(path)
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return how a module is loaded from here."""
        if name not in self._entries:
            return None
        source, package, _, _ = self._entries[name]
        spec = ModuleSpec(name, self, origin=source, is_package=package)  # type: ignore[arg-type] # a loader by its methods
        spec.has_location, spec.cached = True, self._path  # as importlib does it, without asking where Python's file is
        if package:
            spec.submodule_search_locations = [source.rpartition("/")[0]]
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """A usual one will do."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run a module's code."""
        exec(self._entries[module.__name__][3], module.__dict__)

    def keep(self) -> None:
        """Write it anew if it lacked something; where we may not, we do not.

        Nor do we after a start that needed `typing`: what is as slow is rare, and not for all others to read.
        """
        loaders = ((name, getattr(module, "__loader__", None)) for name, module in sys.modules.items())
        lacked = [name for name, loader in loaders if type(loader) is SourceFileLoader and name not in self._earlier]
        if not lacked or "typing" in sys.modules or sys.dont_write_bytecode:
            return
        temporary = f"{self._path}.{posix.getpid()}"
        try:
            with open(temporary, "wb") as file:
                entries = {**self._entries, **{name: _entry(sys.modules[name]) for name in lacked}}
                file.write(MAGIC_NUMBER + marshal.dumps(entries))
            posix.replace(temporary, self._path)
        except OSError:
            try:
                posix.unlink(temporary)
            except OSError:
                pass


def _read(path: str) -> "dict[str, Entry]":
    try:
        with open(path, "rb") as file:
            content = file.read()
        if content.startswith(MAGIC_NUMBER):
            found: dict[str, Entry] = marshal.loads(memoryview(content)[len(MAGIC_NUMBER) :])
            if all(_stamp(source) == stamp for source, _, stamp, _ in found.values()):
                return found
    except (OSError, EOFError, ValueError, TypeError):
        pass  # there is none, or a source has gone, or a machine that lost its power has kept a part of it
    return {}


def _entry(module: "ModuleType") -> "Entry":
    spec: Any = module.__spec__  # of a module that has a source, and a loader that knows its code
    stamp = _stamp(spec.origin)  # before the code: should the source change now, the pack is not believed
    return spec.origin, spec.submodule_search_locations is not None, stamp, spec.loader.get_code(module.__name__)


def _stamp(source: str) -> tuple[int, int]:
    found = posix.stat(source)
    return found.st_mtime_ns, found.st_size
