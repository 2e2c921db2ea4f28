"""All activations of a network in a few storages."""

from __future__ import annotations

from tvm import relax
from tvm.ir import IRModule

from schedules.graph.rewrite import ENTRY, static_shape
from schedules.memory.lifetimes import activations
from schedules.memory.storages import share


def allocate(mod: IRModule) -> IRModule:
    """Give every tensor of ``main`` its part of the storages that were planned (`schedules.memory.storages`).

    TVM's own `StaticPlanBlockMemory` takes the first storage that is large enough, and so needs more; it does the work
    where a shape is not known.

    Before::

        a = builtin.alloc_tensor(shape); f(x, a); b = builtin.alloc_tensor(shape); g(a, b); c = ...; h(b, c)

    After::

        s0 = memory.alloc_storage(bytes); s1 = memory.alloc_storage(bytes)
        a = memory.alloc_tensor(s0, shape); f(x, a); b = memory.alloc_tensor(s1, shape); g(a, b)
        c = memory.alloc_tensor(s0, shape); h(b, c)
    """
    found = activations(mod)
    if found is None:
        return relax.transform.StaticPlanBlockMemory()(mod)
    storages = share(list(found.lifetimes.values()))
    storage_of = dict(zip(found.lifetimes, storages.storage_of, strict=True))
    builder = relax.BlockBuilder(mod)
    sizes = [relax.ShapeExpr([size]) for size in storages.sizes]
    allocations = [builder.normalize(relax.op.memory.alloc_storage(size, 0, "global", "uint8")) for size in sizes]
    variables = [relax.Var(f"storage{index}", call.ty) for index, call in enumerate(allocations)]
    bindings = [relax.VarBinding(*pair) for pair in zip(variables, allocations, strict=True)]
    function = mod[ENTRY]
    for binding in function.body.blocks[0].bindings:
        value = binding.value
        if binding.var in storage_of:
            storage, shape = variables[storage_of[binding.var]], relax.ShapeExpr(static_shape(binding.var))
            tensor = relax.op.memory.alloc_tensor(storage, 0, shape, str(binding.var.ty.dtype))
            value = builder.normalize(tensor)
        bindings.append(relax.VarBinding(binding.var, value))
    body = relax.SeqExpr([relax.BindingBlock(bindings)], function.body.body)
    planned = mod.clone()
    changed = relax.Function(function.params, body, function.ret_ty, is_pure=False, attrs=function.attrs)
    planned.update_func(mod.get_global_var(ENTRY), changed)
    return planned
