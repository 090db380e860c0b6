"""Floor 6: Dockerfile to image. `Builder` is the object that doors hold; `progress` renders what it tells.

Names are imported when they are asked for, so that a command line which only prints progress loads no builder.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kestrel.build.executor import Executor, Limits, Process, Ran, Run, RunMount
    from kestrel.build.failed import FailedRun, OnFailure
    from kestrel.build.request import BuildRequest
    from kestrel.build.service import Builder, BuildResult
    from kestrel.build.solver import StepResult
    from kestrel.build.work import RunFailed

_WHERE = {
    "Builder": "service",
    "BuildRequest": "request",
    "BuildResult": "service",
    "Executor": "executor",
    "FailedRun": "failed",
    "Limits": "executor",
    "OnFailure": "failed",
    "Process": "executor",
    "Ran": "executor",
    "Run": "executor",
    "RunMount": "executor",
    "RunFailed": "work",
    "StepResult": "solver",
}

__all__ = [
    "BuildRequest",
    "BuildResult",
    "Builder",
    "Executor",
    "FailedRun",
    "Limits",
    "OnFailure",
    "Process",
    "Ran",
    "Run",
    "RunFailed",
    "RunMount",
    "StepResult",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
