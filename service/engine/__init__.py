"""Engines: they place and supervise job processes. What an engine forgets, the database still knows."""
