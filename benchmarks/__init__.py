"""Side-by-side measurements against peers, one file a question; each prints ratios, and one JSON object last."""
