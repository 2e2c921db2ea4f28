"""Writing protobuf's wire format by hand: what its own library refuses to write."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """The number in groups of seven bits."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def field(number: int, content: bytes | int, *, length: int | None = None) -> bytes:
    """One field; ``length`` lies about how long its content is."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content) if length is None else length) + content


def model_of(graph: bytes, *, opset: int = 18) -> bytes:
    """A ModelProto around a serialized GraphProto."""
    return field(1, 10) + field(7, graph) + field(8, field(1, b"") + field(2, opset))


def value_info(name: bytes, *sizes: int) -> bytes:
    """A ValueInfoProto: a tensor of float32."""
    shape = b"".join(field(1, field(1, size)) for size in sizes)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))


def relu(source: bytes, target: bytes) -> bytes:
    """A NodeProto."""
    return field(1, source) + field(2, target) + field(4, b"Relu")


def nested_branches(depth: int) -> bytes:
    """A model of Ifs inside of Ifs."""
    last = field(1, relu(b"x", b"y")) + field(2, b"g") + field(12, value_info(b"y", 2, 3))
    graph = last
    for _ in range(depth):
        then = field(5, field(1, b"then_branch") + field(6, graph) + field(20, 5))
        other = field(5, field(1, b"else_branch") + field(6, last) + field(20, 5))
        node = field(1, b"c") + field(2, b"y") + field(4, b"If") + then + other
        graph = field(1, node) + field(2, b"g") + field(12, value_info(b"y", 2, 3))
    condition = field(11, field(1, b"c") + field(2, field(1, field(1, 9) + field(2, b""))))
    return model_of(graph + condition + field(11, value_info(b"x", 2, 3)))


def chain(length: int) -> bytes:
    """A model of Relus behind each other."""
    names = [b"x", *(b"v%d" % index for index in range(1, length)), b"y"]
    nodes = b"".join(field(1, relu(names[index], names[index + 1])) for index in range(length))
    return model_of(nodes + field(2, b"g") + field(11, value_info(b"x", 2, 3)) + field(12, value_info(b"y", 2, 3)))
