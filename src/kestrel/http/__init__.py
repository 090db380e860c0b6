"""Floor 1: HTTP both ways, its upgrades and its certificates; the only package that knows the wire.

Import the piece you need (`http.server`, `http.client`, `http.tls`): each is heavy in its own way (aiohttp a third of
a second, cryptography a tenth), so this file imports none of them.
"""
