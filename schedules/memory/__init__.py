"""Memory of a network's activations: which are alive when, and which of them share a storage."""
