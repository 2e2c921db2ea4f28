"""The trusted half of a job: it has the database, the blobs and the key, and serves the half that has the model.

The other half (`tuner.job`) is confined, and nothing that it says is believed before it was looked at: a message of
another shape, a path, a size or a number that cannot be ends the job (`ForgedResult`), and no other.
"""
