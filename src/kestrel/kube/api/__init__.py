"""Kubernetes objects as values: names, schemas, defaults, validation, patches and printing. Pure, no I/O.

Everything is driven by two tables: the resources (`scheme`) and the field schemas (`schemas`). A document is a plain
JSON object (`dict[str, Any]`); functions that change one say whether they change it in place.
"""
