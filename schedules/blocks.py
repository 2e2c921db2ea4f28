"""The blocks of a function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm.ir import IRModule
from tvm.s_tir import SBlockRealize
from tvm.tirx import For, SeqStmt


def blocks_of(statement: Any) -> Iterator[Any]:
    """Every block under a statement, in the order of the program."""
    if isinstance(statement, SBlockRealize):
        yield statement.block
        yield from blocks_of(statement.block.body)
    elif isinstance(statement, For):
        yield from blocks_of(statement.body)
    elif isinstance(statement, SeqStmt):
        for part in statement.seq:
            yield from blocks_of(part)


def block_names(mod: IRModule) -> list[str]:
    """The names of the blocks of the function ``main``, in the order of the program."""
    return [str(block.name_hint) for block in blocks_of(mod["main"].body)]
