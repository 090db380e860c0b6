"""The Kubernetes REST API over an object store: one table of resources, no code per kind but strategies."""
