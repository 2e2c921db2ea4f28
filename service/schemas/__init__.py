"""What the REST interface says: one pydantic model a noun. Units are in the names."""
