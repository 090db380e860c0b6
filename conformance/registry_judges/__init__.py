"""The registry, judged by programs of others, which are run from outside."""
