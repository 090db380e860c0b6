"""Objects by key, resourceVersion and watch: what etcd is to others."""
