"""Gives pending pods their node, and says why when it cannot."""

from kestrel.kube.scheduler.scheduler import Scheduler

__all__ = ["Scheduler"]
