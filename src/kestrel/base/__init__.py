"""Floor 0: vocabulary and small tools; knows no container concept."""
