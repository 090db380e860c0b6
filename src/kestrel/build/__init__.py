"""Floor 6: Dockerfile to image. `Builder` is the object that doors hold; `progress` renders what it tells.

Names are imported when they are asked for, so that a command line which only prints progress loads no builder.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kestrel.build.check import Checked, Fixed
    from kestrel.build.collect import Collection, Policy
    from kestrel.build.contents import Contents
    from kestrel.build.events import Event
    from kestrel.build.executor import Executor, Limits, Process, Ran, Run, RunMount
    from kestrel.build.failed import FailedRun, OnFailure
    from kestrel.build.journal import Logged
    from kestrel.build.leaks import SecretLeaked
    from kestrel.build.offers import BuildOutline, Target
    from kestrel.build.outputs import Output
    from kestrel.build.report import ContextReport
    from kestrel.build.request import BuildRequest
    from kestrel.build.service import Builder, BuildResult, Verified
    from kestrel.build.solver import StepResult
    from kestrel.build.verify import Difference
    from kestrel.build.work import RunFailed

_WHERE = {
    "BuildOutline": "offers",
    "BuildRequest": "request",
    "BuildResult": "service",
    "Builder": "service",
    "Checked": "check",
    "Collection": "collect",
    "Contents": "contents",
    "ContextReport": "report",
    "Difference": "verify",
    "Event": "events",
    "Executor": "executor",
    "FailedRun": "failed",
    "Fixed": "check",
    "Limits": "executor",
    "Logged": "journal",
    "OnFailure": "failed",
    "Output": "outputs",
    "Policy": "collect",
    "Process": "executor",
    "Ran": "executor",
    "Run": "executor",
    "RunFailed": "work",
    "RunMount": "executor",
    "SecretLeaked": "leaks",
    "StepResult": "solver",
    "Target": "offers",
    "Verified": "service",
}

__all__ = [
    "BuildOutline",
    "BuildRequest",
    "BuildResult",
    "Builder",
    "Checked",
    "Collection",
    "Contents",
    "ContextReport",
    "Difference",
    "Event",
    "Executor",
    "FailedRun",
    "Fixed",
    "Limits",
    "Logged",
    "OnFailure",
    "Output",
    "Policy",
    "Process",
    "Ran",
    "Run",
    "RunFailed",
    "RunMount",
    "SecretLeaked",
    "StepResult",
    "Target",
    "Verified",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
