"""What is installed: the client and these commands (``tessera``), or what a server needs, too (``tessera[server]``)."""

from __future__ import annotations

from importlib.util import find_spec

from service.errors import ServiceError

# What the packages of the extra are imported as.
SERVER_MODULES = (
    "tvm",
    "tvm_ffi",
    "cloudpickle",
    "numpy",
    "onnx",
    "onnxruntime",
    "psutil",
    "tornado",
    "xgboost",
    "ziglang",
    "zstandard",
    "alembic",
    "fastapi",
    "fastapi_problem",
    "jinja2",
    "joserfc",
    "markupsafe",
    "netron",
    "prometheus_client",
    "python_multipart",
    "sqlalchemy",
    "starlette",
    "uuid_utils",
    "uvicorn",
)


class ServerNotInstalled(ServiceError):
    """Only the client is installed here."""

    code = "server_not_installed"
    hint = "pip install 'tessera[server]'"


def require_server(what: str, *, modules: tuple[str, ...] = SERVER_MODULES, hint: str | None = None) -> None:
    """Raises `ServerNotInstalled` where a module is not there. Nothing is loaded: this costs a millisecond."""
    missing = next((module for module in modules if find_spec(module) is None), None)
    if missing is not None:
        raise ServerNotInstalled(f"{what} needs the server's packages: {missing} is not installed.", hint=hint)
