"""Floor 5: the low-level runtime. It turns an OCI `Spec` into a running process, and starts fast.

Four kinds of process, each the child of the one before:

    daemon ──posix_spawn──▶ zygote ──fork──▶ shim, one per sandbox ──clone3──▶ init, one per container ──execve──▶ ...

The zygote (`zygote.py`) is warm and does nothing else than fork. A shim (`shim.py`) holds a sandbox's namespaces,
its containers, their output and their ends, and outlives the daemon. `parent.py` is the shim's half of making a
container, `init.py` the other half, inside; what they carry out is a plan (`plan.py`), which is data.

Nothing here imports asyncio; the daemon's half of the conversation is `kestrel.engine.shims`.
"""
