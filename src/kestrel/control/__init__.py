"""Floor 8: the door of our own command line: one verb a request, JSON lines or a taken-over stream as the answer."""
