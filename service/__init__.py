"""Who asks and where it is kept: REST, dashboard, jobs, database, blobs, engine, command line."""
