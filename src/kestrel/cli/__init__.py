"""Floor 10: the `kestrel` command: words a request, prints the answer, decides nothing."""
