"""What the server and its bridge to Ray have in common; neither loads the other."""

# A node says with such a resource that it measures for a target: ray start --resources='{"target:host": 1}'
RESOURCE_PREFIX = "target:"
