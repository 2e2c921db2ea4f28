"""Confinement of the processes that parse, compile and run a stranger's model. Linux only; standard library only.

`start.start` runs a command in it: `enter` changes the user where it may, sets limits, drops privileges, and has the
kernel take away files (Landlock) and system calls (seccomp) before it becomes the command. Whatever that starts
inherits all of it. `strength` says what of it this machine has.
"""

from typing import Literal

Mode = Literal["auto", "required", "off"]
"""``TESSERA_SANDBOX``: what there is, all of it or nothing is run, or none of it."""
