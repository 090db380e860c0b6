"""Builds an image from Python, says why each step ran, what of the context was read and what the layers hold.

    python examples/build/build.py DIRECTORY

Where Kestrel keeps things is what KESTREL_ROOT, KESTREL_RUN and KESTREL_NAME say; no daemon may run there.
"""

import asyncio
import sys
from pathlib import Path

import kestrel
from kestrel.build import Output


async def main(context: Path) -> None:
    """Check, build, explain, report."""
    request = kestrel.BuildRequest(
        context=context,
        tags=("from-python:1",),
        build_args={"VERSION": "1.0"},
        outputs=(Output(type="oci", destination=context.parent / "image.tar", compression="gzip"),),
    )
    async with kestrel.open_builder() as builder:
        for finding in (await builder.check(request)).findings:
            print(f"line {finding.line}: {finding.rule.name}: {finding.detail}")
        result = await builder.build(request, lambda event: print(f"  {event}"))
        for step in result.steps:
            print(f"{step.title}: {'reused' if step.cached else 'ran'}, {step.reason}")
        used = (await builder.context_report(request)).used
        print(f"{used.files} files of the context were read")
        for layer in (await builder.contents("from-python:1")).layers:
            print(f"{layer.size} bytes by {layer.created_by}")
        print(result.image_id)


asyncio.run(main(Path(sys.argv[1])))
