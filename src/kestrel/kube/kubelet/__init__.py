"""The node's agent: makes the pods bound to this node come true and says how they are."""
