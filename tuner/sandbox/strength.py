"""What this machine has for confining a process, and what is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tuner.sandbox import landlock, seccomp, user

# From here on truncating a file is a right of its own: before, files that may only be read could be emptied.
_GOOD_LANDLOCK = 3


@dataclass(frozen=True, kw_only=True)
class Strength:
    """``landlock_abi`` 0: none. ``own_user`` is for services that run as root."""

    landlock_abi: int
    seccomp: bool
    own_user: bool
    is_root: bool

    @property
    def is_enough(self) -> bool:
        """Whether a confined process sees no file, network or process of others, and cannot fill the machine with
        processes: what ``TESSERA_SANDBOX=required`` asks for."""
        return not self.missing

    @property
    def missing(self) -> list[str]:
        """What a stranger's code could do here, in words."""
        gaps = []
        if self.landlock_abi < _GOOD_LANDLOCK:
            gaps.append("files are not protected (the kernel has no Landlock, or an old one: Linux 6.2 is needed)")
        if not self.seccomp:
            gaps.append("the network is not protected (no filter of system calls on this machine)")
        if self.is_root and not self.own_user:
            gaps.append(
                "processes are not limited (root that may not change its user: run the service as another user)"
            )
        elif not self.is_root and self.landlock_abi < landlock.SCOPES_ABI:
            gaps.append(
                "the service's processes can be signalled (Linux 6.12 is needed, or a service that runs as root)"
            )
        return gaps

    def describe(self, mode: str) -> str:
        """What is in force with a setting of ``TESSERA_SANDBOX``, and what is missing."""
        if mode == "off":
            return "OFF: models run with the rights of the service (TESSERA_SANDBOX=off)"
        return "; ".join([str(self), *self.missing])

    def __str__(self) -> str:
        """What is in force, in a line."""
        parts = [
            f"landlock abi {self.landlock_abi}" if self.landlock_abi else "",
            "seccomp" if self.seccomp else "",
            "own user" if self.own_user else "",
            "resource limits",
        ]
        return ", ".join(filter(None, parts))


def strength() -> Strength:
    """Of this machine and the user that we run as. Asks the kernel: a few system calls."""
    landlock_abi = landlock.abi()
    return Strength(
        landlock_abi=landlock_abi,
        seccomp=seccomp.is_supported(),
        own_user=landlock_abi > 0 and user.can_change(),
        is_root=os.geteuid() == 0,
    )
