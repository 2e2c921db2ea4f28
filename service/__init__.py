"""Who asks and where it is kept: REST, dashboard, jobs, database, blobs, engine, command line."""

__version__ = "0.1.0"
