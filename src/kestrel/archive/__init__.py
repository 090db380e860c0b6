"""Floor 3: layers as tar. In (`apply`), out (`diff`), and the compression around them (`compression`)."""
