"""The dashboard: server-rendered pages over the same data as the REST API, kept live by small ES modules."""
