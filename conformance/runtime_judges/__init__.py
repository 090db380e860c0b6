"""Runs the suites of other projects against an OCI runtime and says by name what passed, failed and was skipped."""
