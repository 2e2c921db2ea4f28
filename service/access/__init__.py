"""Who may do what: tokens, browser sessions, the scope of every route, limits, and the log of changes.

Nothing is imported here: the client reads `service.access.local_token` without the server's packages.
"""
