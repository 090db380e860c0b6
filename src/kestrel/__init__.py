"""Kestrel: from a Dockerfile to a running Pod on one machine.

The names here are what a program of yours may use; they are imported when they are asked for, because the command
line and the runtime start with this package too.
"""

TYPE_CHECKING = False  # as typing has it, which the runtime does not load
if TYPE_CHECKING:
    from kestrel.app.embedded import open_builder
    from kestrel.app.settings import Settings
    from kestrel.base.errors import KestrelError
    from kestrel.build import Builder, BuildRequest, BuildResult, Limits

__version__ = "0.1.0"
__all__ = [
    "BuildRequest",
    "BuildResult",
    "Builder",
    "KestrelError",
    "Limits",
    "Settings",
    "__version__",
    "open_builder",
]

_WHERE = {
    "BuildRequest": "build",
    "BuildResult": "build",
    "Builder": "build",
    "KestrelError": "base.errors",
    "Limits": "build",
    "Settings": "app.settings",
    "open_builder": "app.embedded",
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
