"""Schedules for GPUs: blocks and threads instead of parallel loops and vectors."""
