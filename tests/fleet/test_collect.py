# SPDX-License-Identifier: MIT
"""tests/fleet/collect on a live Linux, whose sys and dev are made up: what it
writes is that machine, and nothing of its owner."""
import importlib.machinery
import importlib.util
import struct

import pytest

from fleet import fleet, judge, make_machines, paper

HV = "igd assign=all"
SECRETS = (b"\xde\xad\xbe\xef\x00\x11\x22\x33", b"PF0SERIAL", b"\x52\x54\x00"
           b"\xc0\xff\xee", b"PRODUCT-KEY-12345", b"owner's brand")
OPREGION = make_machines.NVS + 0x18


def load():
    loader = importlib.machinery.SourceFileLoader(
        "collect", str(fleet.OWN.parent / "collect"))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader("collect", loader))
    loader.exec_module(module)
    return module


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def resources(f):
    """As the kernel prints them: start, end, flags."""
    out = []
    bars = f.bars()
    for n in range(7):
        ports, base, size = bars.get(n, (False, 0, 0))
        flags = 0x100 if ports else 0x200
        flags |= 0x100000 * (f.get(0x10 + 4 * n, 4) & 7 == 4)
        out.append(f"{base:#x} {base + size - 1:#x} {flags:#x}" if size else
                   "0x0 0x0 0x0")
    return "\n".join(out) + "\n"


def secrets(f):
    """A serial number (DSN), and what a vendor keeps where it likes."""
    f.put(0x100, 4, 0x00010003 | f.get(0x100, 4) & 0xfff00000)
    f.config[0x104:0x10c] = SECRETS[0]
    f.config[0xd0:0xd6] = SECRETS[2]
    f.cap = max(f.cap, 0x70)    # not over graphics' registers
    f.capability(3, b"\0\x80" + SECRETS[1])     # VPD, a read in its register
    return f


def tree(root, machine):
    kinds = {1: "System RAM", 2: "Reserved", 3: "ACPI Tables",
             4: "ACPI Non-volatile Storage"}
    for n, (base, size, kind) in enumerate(machine.rows):
        for name, text in (("start", f"{base:#x}"),
                           ("end", f"{base + size - 1:#x}"),
                           ("type", kinds[kind])):
            put(root / f"sys/firmware/memmap/{n}/{name}", text + "\n")
    for table in machine._tables():
        put(root / f"sys/firmware/acpi/tables/{table[:4].decode()}", table)
    put(root / "sys/firmware/acpi/tables/MSDM",
        make_machines.header(b"MSDM", 1, bytes(20) + SECRETS[3]))
    put(root / "sys/class/dmi/id/product_name", "Desktop\n")
    put(root / "sys/class/dmi/id/product_serial", SECRETS[1])
    for n, (base, cap, ecap) in enumerate(machine.units):
        for name, value in (("address", base), ("cap", cap), ("ecap", ecap)):
            put(root / f"sys/class/iommu/dmar{n}/intel-iommu/{name}",
                f"{value:x}\n")
    for bdf, f in machine.functions.items():
        device = root / f"sys/bus/pci/devices/0000:{paper.text_of(bdf)}"
        put(device / "resource", resources(f))
        put(device / "config", bytes(secrets(f).config))
    put(root / "sys/kernel/debug/dri/0/i915_opregion",
        b"IntelGraphicsMem\x08\0\0\0\0\0\0\x02".ljust(8192, b"\0"))


@pytest.fixture
def text(tmp_path):
    module, lines = load(), []
    machine = make_machines.usb_rmrr()
    machine.finish()
    tree(tmp_path, machine)

    class Devices(module.Source):
        """Whose dev/cpu files answer by number."""

        def read(self, path, at=0, size=-1):
            if path == "dev/cpu/0/cpuid":
                return struct.pack("<4I", *machine.cpuid.get(
                    (at & 0xffffffff, at >> 32), (0,) * 4))
            if path == "dev/cpu/0/msr":
                return struct.pack("<Q", machine.msr[at]) \
                    if at in machine.msr else b""
            return super().read(path, at, size)
    module.Source = Devices
    machine.cpuid[0x80000002, 0] = struct.unpack("<4I", SECRETS[4].ljust(16))
    machine.cpuid[3, 0] = machine.cpuid[0x80000002, 0]
    module.collect(tmp_path, lines.append)
    return "\n".join(lines) + "\n"


def test_the_machine_starts_as_the_original(text, tmp_path):
    path = tmp_path / "collected.fleet"
    path.write_text(text)
    row = judge.judge(path, HV)
    original = judge.judge(fleet.OWN / "usb-rmrr.fleet", HV)
    assert row.starts and not row.faults, row.outcome
    assert row.given == original.given and row.has_all()
    assert row.machine.rows == sorted(original.machine.rows)
    for bdf, f in original.machine.functions.items():
        assert row.machine.functions[bdf].bars() == f.bars()


def test_nothing_of_its_owner(text):
    low = text.lower()
    for secret in SECRETS:
        for part in (secret, secret[:6], secret[-6:]):
            assert part.hex() not in low.replace(" ", "")
            assert part.decode("latin1").lower() not in low
    brand, = struct.unpack("<I", SECRETS[4][:4])
    assert f"{brand:x}" not in low
    assert {line.split()[2] for line in text.splitlines()
            if line.startswith("acpi ")} == {"APIC", "DMAR", "FACP", "MCFG"}


def test_what_is_missing_is_said(tmp_path):
    lines = []
    load().collect(tmp_path, lines.append)
    said = "\n".join(line for line in lines if line.startswith("#"))
    for what in ("memmap", "DMAR", "cpuid", "msr"):
        assert what in said


def test_it_reads_only(tmp_path):
    """Nothing is opened for writing, and nothing is made."""
    machine = make_machines.usb_rmrr()
    tree(tmp_path, machine)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    load().collect(tmp_path, lambda line: None)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
