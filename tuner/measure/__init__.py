"""Builder and runner: child processes that compile candidates and time them, with watchdogs in the parent."""
