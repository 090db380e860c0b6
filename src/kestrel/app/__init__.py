"""Floor 9: puts the parts together; the only place that names concrete classes and reads the environment."""
