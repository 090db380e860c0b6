"""The version of the runtime specification that is followed; apart from its types, which need `typing` to be loaded."""

VERSION = "1.2.1"
