"""Makes the Kubernetes schemas when Kestrel is built or installed: they are others' work, so not in the tree."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SchemasBuildHook(BuildHookInterface[Any]):
    """Runs `generate_schemas.py` and adds what it wrote to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the interface's
        """Write the files before anything is collected."""
        sys.path.insert(0, str(Path(self.root, "tools")))
        import generate_schemas

        generate_schemas.write()
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in generate_schemas.paths()]
