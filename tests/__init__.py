"""Tests, laid out as the three packages are."""
