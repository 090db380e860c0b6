"""The daemon: one lock, one start order, one stop order.

The zygote is started before anything heavy is imported, so that both start side by side. Readiness is one line on
a pipe; a start that fails says why on stderr, which is the log, and the command that started us quotes it.
"""

import asyncio
import gc
import logging
import os
import signal
import sys

from kestrel.app import settings as configuration
from kestrel.base import disk
from kestrel.base.errors import KestrelError
from kestrel.base.files import locked, private_directory

log = logging.getLogger("kestrel")


def main() -> None:
    """Run the daemon in this process until it is told to stop."""
    ready = int(sys.argv[sys.argv.index("--ready-fd") + 1]) if "--ready-fd" in sys.argv else None
    if ready is not None:
        os.set_inheritable(ready, False)  # the zygote must not hold it open: its end is how a failure is noticed
    logging.basicConfig(
        level=os.environ.get("KESTREL_LOG", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    try:
        settings = configuration.read()
        private_directory(settings.run)
        private_directory(settings.root)
        with locked(settings.run / "daemon.lock", blocking=False):
            asyncio.run(_serve(settings, ready))
    except BlockingIOError:
        _fail("another kestrel daemon runs with the same run directory")
    except Exception as error:
        known = error if isinstance(error, KestrelError) else disk.refusal(error)
        if known is None:
            raise
        _fail(f"{known.message}; hint: {known.hint}" if known.hint else known.message)


def _fail(reason: str) -> None:
    sys.stderr.write(f"{reason}\n")
    sys.exit(1)


async def _serve(settings: configuration.Settings, ready: int | None) -> None:
    from kestrel.engine.shims import Zygote

    zygote = await Zygote.start(settings.run)
    from kestrel.app.wiring import Platform

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Platform(settings, zygote, stop):
        # What is loaded stays: collecting it again and again would stop the loop for a quarter of a second each time.
        gc.freeze()
        gc.set_threshold(20_000, 50, 100)
        log.info("ready")
        if ready is not None:
            os.write(ready, b"ready\n")
            os.close(ready)
        await stop.wait()
        log.info("stopping")
    await zygote.close()
