# SPDX-License-Identifier: MIT
"""Which rig `auto` means on this machine."""
import pathlib

NESTED = pathlib.Path("/sys/module/kvm_intel/parameters/nested")


def why_not_kvm(cpuinfo="/proc/cpuinfo", kvm="/dev/kvm", nested=NESTED):
    """Why this machine cannot run VMX in a KVM guest, or None."""
    try:
        flags = pathlib.Path(cpuinfo).read_text()
    except OSError as error:
        return f"{cpuinfo}: {error.strerror}"
    if " vmx" not in flags:
        return f"no vmx in {cpuinfo}"
    try:
        with open(kvm, "r+b", buffering=0):
            pass
    except OSError as error:
        return f"{kvm}: {error.strerror}"
    try:
        if pathlib.Path(nested).read_text().strip() not in ("Y", "1"):
            return "kvm_intel has nested=N"
    except OSError:
        return "kvm_intel is not loaded"
    return None


def choose():
    """Return (rig, why)."""
    why = why_not_kvm()
    if why:
        return "bochs", f"not kvm: {why}"
    return "kvm", "nested VMX is there"
