"""Floor 8: the Kubernetes door. Objects are plain JSON driven by one table of resources; see `kube.api.scheme`."""
