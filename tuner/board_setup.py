"""What to run on a board so that it joins the fleet."""

from __future__ import annotations

from importlib.metadata import version
from string import Template

from tuner.bundle import requirements
from tuner.targets import TargetSpec

# What TVM's RPC server imports beside the runtime.
_SERVER_PACKAGES = ("cloudpickle", "psutil")
_COMMANDS = Template("""\
Boards of $device join the tracker at $host:$port under the name of their target, $target.

The server:   TESSERA_TRACKER=$host:$port tessera serve

Once on the board:

    python3 -m venv tessera-board
    tessera-board/bin/pip install $packages
$tunnel
Then, for as long as it is to measure ($loop):

    export TVM_USE_RUNTIME_LIB=1 TVM_NUM_THREADS=$threads TVM_BIND_THREADS=0
    while sleep 1; do
      tessera-board/bin/python -m tvm.exec.rpc_server --tracker $host:$port --key $target $listen --port 9090
    done

TVM RPC runs whatever code it is sent, and asks nobody who they are: private networks or tunnels only.
""")
_LOOP = "the loop brings the server back after a candidate that took it down"
_TUNNEL = Template("""
This tracker listens on this machine only: a board joins through a tunnel (each board with a port of its own):

    ssh -N -R $port:127.0.0.1:$port -L 9090:127.0.0.1:9090 BOARD
""")


def board_requirements() -> list[str]:
    """The pinned packages of a board, as installed here."""
    return [*requirements().split(), *(f"{name}=={version(name)}" for name in _SERVER_PACKAGES)]


def board_commands(spec: TargetSpec, *, host: str, port: int) -> str:
    """How a board of a target joins the tracker at that address, for people to read and copy."""
    packages = " ".join(board_requirements())
    is_loopback = host in ("127.0.0.1", "localhost", "::1")
    return _COMMANDS.substitute(
        device=spec.device,
        target=spec.name,
        threads=spec.threads,
        host=host,
        port=port,
        packages=packages,
        loop=_LOOP,
        tunnel=_TUNNEL.substitute(port=port) if is_loopback else "",
        listen="--host 127.0.0.1 --custom-addr 127.0.0.1" if is_loopback else "--host 0.0.0.0",
    )
