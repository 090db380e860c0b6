"""Floor 1: the kernel. The only package that calls libc or netlink; it reads like a manual of what it wraps."""
