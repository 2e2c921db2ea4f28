"""Webhooks: addresses that are told when a job has ended."""
