"""Kestrel: from a Dockerfile to a running Pod on one machine."""

__version__ = "0.1.0"
