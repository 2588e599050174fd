# SPDX-License-Identifier: MIT
"""The program of tests/guests/bios/real.asm, a file for each of its cases."""
from boot import runs
from rigs.spec import BUILD

PROGRAM = BUILD / "guests" / "real.bin"
SECTOR, CD_SECTOR = 512, 2048
HV = "guest=bios ram=identity"
# tests/guests/bios/real.asm
CASES = {"text": 0, "mode13": 1, "vbe": 2, "report": 3, "load": 4,
         "acpi": 5}
# Rounds of load, each with four calls of the BIOS. Nested, each of VGABIOS's
# many port accesses takes an exit to QEMU.
ROUNDS = {"bochs": 100000, "nested": 25000}


def image(case, rig="nested"):
    """The program, told what to do; a file of whole CD sectors."""
    data = bytearray(PROGRAM.read_bytes())
    data[3] = CASES[case]
    data[4:8] = ROUNDS[rig].to_bytes(4, "little")
    data += bytes(-len(data) % CD_SECTOR)
    path = runs.work(f"real-{case}-{rig}.bin")
    path.write_bytes(data)
    return path
