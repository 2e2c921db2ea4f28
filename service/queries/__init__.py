"""Reads: one module a noun, each function from the database to the schemas that REST, pages and CLI show."""
