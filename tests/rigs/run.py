# SPDX-License-Identifier: MIT
"""Start a machine, or boot one to its end."""
import os
import time

from . import iso
from .bochs import Bochs
from .choose import choose
from .qemu import Qemu
from .result import RigError
from .spec import Spec

RIGS = {"bochs": Bochs, "kvm": Qemu, "tcg": Qemu}


def options(spec):
    """Monocle's command line: the log goes to port 0xE9, COM1 is free."""
    return f"log=e9 {spec.hv}".strip()


def check(spec):
    """Refuse what a rig cannot do."""
    if spec.rig == "bochs":
        if spec.firmware != "bios":
            raise RigError("bochs has no UEFI firmware: use a QEMU rig")
        if spec.devices or spec.drives or spec.igd:
            raise RigError("bochs takes no QEMU devices")
    for file in (spec.kernel, spec.initrd, spec.monocle, spec.iso):
        if file and not os.access(file, os.R_OK):
            raise RigError(f"{file}: cannot be read")


def settle(spec, say):
    """A rig that is there, and can do what is asked."""
    if spec.rig == "auto":
        spec.rig, why = choose()
        say(f"rig {spec.rig} ({why})")
    check(spec)


def start(spec=None, hooks=None, say=None, **fields):
    """Start a machine; return it, to be used as a context manager.

    `hooks` maps a stream's name to a function that is given its bytes;
    `say` is given a line for each long step.
    """
    say = say or (lambda line: None)
    spec = spec or Spec(**fields)
    settle(spec, say)
    machine = RIGS[spec.rig](spec, hooks)
    try:
        image = spec.iso
        if not image:
            begin = time.monotonic()
            image = iso.build(spec, options(spec), machine.work)
            size = os.stat(image).st_size / 1e6
            say(f"boot image: {size:.1f} MB in "
                f"{time.monotonic() - begin:.1f} s")
        say(f"starting {machine.name}, {spec.memory} MiB")
        return machine.start(os.path.abspath(image))
    except BaseException:
        machine.close()
        raise


def boot(spec=None, hooks=None, say=None, screenshot=None, **fields):
    """Boot to the end; return the Result."""
    spec = spec or Spec(**fields)
    if spec.rig == "nested":
        from . import nested    # which itself boots a bochs
        return nested.boot(spec, hooks, say)
    with start(spec, hooks, say) as machine:
        return machine.finish(screenshot=screenshot)
