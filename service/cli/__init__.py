"""The command line: ``tessera``. Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 server unreachable."""

from __future__ import annotations

import sys
from typing import NoReturn

from tuner.errors import TesseraError

# What a person mistyped, in contrast to a model that is bad or a job that failed.
_USAGE_CODES = frozenset(
    {
        "invalid_request",
        "invalid_budget",
        "invalid_option",
        "file_not_found",
        "unknown_target",
        "invalid_target",
        "job_not_found",
        "model_not_found",
        "samples_not_found",
        "artifact_not_found",
        "cost_model_not_found",
        "no_device",
        "no_tracker",
        "wrong_target",
        "server_not_installed",
        "invalid_blobs_url",
        "invalid_database_url",
        "driver_not_installed",
        "ray_address_missing",
        "ray_not_installed",
        "database_empty",
        "database_not_empty",
        "dump_invalid",
        "database_too_new",
        "dump_too_new",
        "token_not_found",
        "token_exists",
        "weak_token",
        "access_not_set_up",
        "data_dir_readable",
    }
)
_UNREACHABLE_CODES = frozenset({"server_unreachable", "database_unavailable"})


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command; errors of ours print their message and hint, never a traceback."""
    from service.cli.app import app

    try:
        app(arguments if arguments is None else list(arguments))
    except TesseraError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"Hint: {error.hint}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has enough: `tessera records export | head`
        sys.stderr.close()
        sys.exit(0)
    sys.exit(0)


def exit_code(error: TesseraError) -> int:
    if error.code in _UNREACHABLE_CODES:
        return 3
    return 2 if error.code in _USAGE_CODES else 1
