"""Schedule templates: loop nests that are written out, with few decisions left, where rules would not find them."""

from __future__ import annotations

from collections.abc import Callable

from tvm.ir import IRModule
from tvm.s_tir import Schedule

from schedules.blocks import block_names
from schedules.grouped import SUMS
from schedules.templates.elementwise import is_elementwise, schedule_elementwise
from schedules.templates.grouped import schedule_grouped
from schedules.templates.rows import normalizes_rows, schedule_rows
from schedules.templates.winograd import schedule_input_transform, schedule_output_transform
from schedules.windows.template import is_chain, schedule_chain
from schedules.winograd import INPUT, OUTPUT_ROWS

__all__ = ["Template", "template_for"]

Template = Callable[[Schedule], None]
"""Applies the template's steps to a schedule of the function ``main``; its sampled decisions are the design space."""


def template_for(mod: IRModule) -> Template | None:
    """The template of the function ``main``, None where the rules of `schedules.rules` are to find its spaces."""
    names = block_names(mod)
    if INPUT in names:
        return schedule_input_transform
    if OUTPUT_ROWS in names:
        return schedule_output_transform
    if SUMS in names:
        return schedule_grouped
    if is_chain(mod):
        return schedule_chain
    if is_elementwise(mod):
        return schedule_elementwise
    return schedule_rows if normalizes_rows(mod) else None
