"""The Kubernetes door: a real Kubernetes API, and the parts that make its objects come true on this machine.

`api` holds the objects as values and does no I/O; `store` keeps them; `apiserver` serves them; `client` is how
`kubelet`, `scheduler` and `controllers` see them. Objects are plain JSON documents everywhere, and the table in
`api.scheme` says what each kind is called and may do.
"""
