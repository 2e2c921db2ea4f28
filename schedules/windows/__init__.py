"""Sliding windows: chains of windowed operators computed a few rows at a time, their intermediates in rings of rows."""
