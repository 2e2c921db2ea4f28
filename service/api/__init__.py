"""The REST interface: schemas, pagination and one router a noun."""
