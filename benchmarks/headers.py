"""What machine an object file or library is for, by its header: ELF, Mach-O or COFF."""

from __future__ import annotations

import struct

_ELF_MACHINES = {0x03: "x86", 0x28: "arm", 0x3E: "x86_64", 0xB7: "aarch64", 0xF3: "riscv"}
_MACH_O_CPUS = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
_COFF_MACHINES = {0x8664: "x86_64", 0xAA64: "aarch64"}


def header(data: bytes) -> str:
    """Such as ``ELF 64 aarch64`` or ``COFF x86_64``, from the first 20 bytes of a file; empty for others."""
    if data[:4] == b"\x7fELF":
        (machine,) = struct.unpack_from("<H", data, 18)
        return f"ELF {32 * data[4]} {_ELF_MACHINES.get(machine, hex(machine))}"
    if data[:4] == b"\xcf\xfa\xed\xfe":
        (cpu,) = struct.unpack_from("<I", data, 4)
        return f"Mach-O 64 {_MACH_O_CPUS.get(cpu, hex(cpu))}"
    (machine,) = struct.unpack_from("<H", data)
    return f"COFF {_COFF_MACHINES[machine]}" if machine in _COFF_MACHINES else ""


def expected_header(triple: str) -> str:
    """What `header` says of code for a link triple."""
    arch, _, system = triple.partition("-")
    name = {"arm": "arm", "riscv64": "riscv"}.get(arch, arch)
    if system.startswith("macos"):
        return f"Mach-O 64 {name}"
    if system.startswith("windows"):
        return f"COFF {name}"
    return f"ELF {32 if arch == 'arm' else 64} {name}"
