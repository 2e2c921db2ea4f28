"""The search: which task next, which candidates of it, and what the measurements teach. Free of TVM and clocks."""
