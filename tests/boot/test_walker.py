# SPDX-License-Identifier: MIT
"""The walk over the EPT of a guest that is about to start (tests/walker), on
Bochs: the region list page for page, and nothing of Monocle's."""

import pytest

from boot import runs
from rigs.spec import BUILD
from walker import TableError, boot as walk, ept, parse_regions, wanted_cpu

PAGE = 4096
CONFIGURATIONS = {
    "relocated": {},
    "identity": {"hv": "ram=identity"},
    "no-vga": {"hv": "no-vga"},
    "less-memory": {"hv": "memory=20M"},
    "identity-less-memory": {"hv": "ram=identity memory=20M"},
    "odd-memory": {"memory": 77},
    "2M-pages": {"memory": 128, "cpu": "corei7_ivy_bridge_3770k"},
    "linux": {"kernel": None, "append": "demo.run=true", "memory": 256},
}


def found_at_start(name):
    """What is Found where the guest starts."""
    fields = {"append": "exit status=0", **CONFIGURATIONS[name]}
    walk.install()
    with runs.start(**fields) as machine:
        return machine.walked


for _name in CONFIGURATIONS:
    runs.define(f"walk-{_name}")(
        lambda name=_name: found_at_start(name))


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.runs(f"walk-{name}"))
    for name in CONFIGURATIONS])
def test_ept(run, name):
    """check() raises in the run; here is what it must have seen."""
    found = run(f"walk-{name}")
    assert found, "no guest was started"
    regions = parse_regions(found.still.log)
    bytes_mapped = sum(size for _, size, *_ in found.ept)
    assert bytes_mapped == sum(p.end - p.gpa for p in wanted_cpu(regions))
    sizes = {leaf[1] for leaf in found.ept}
    assert sizes >= {PAGE, 2 << 20}
    kinds = list(found.own.values())
    assert {"image", "stack", "a CPU's tables", "tables"} == set(kinds)
    identity = "ram=identity" in CONFIGURATIONS[name].get("hv", "")
    moved = [r for r in regions if r.kind == "ram" and r.gpa != r.hpa]
    assert bool(moved) != identity
    assert {leaf[4] for leaf in found.ept if leaf[2] < 0xa0000} <= {"WB"}


def region(found, kind, name):
    """The first region of that kind and name."""
    return next(r for r in parse_regions(found.still.log)
                if r.kind == kind and r.name == name)


ERRORS = {
    "a right too many": (("rom", "BIOS"), lambda e, own: e | 2, "differ"),
    "a right too few": (("ram", "ram"), lambda e, own: e & ~4, "differ"),
    "another type": (("device", "legacy"), lambda e, own: e | 6 << 3,
                     "differ"),
    "ignores PAT": (("device", "legacy"), lambda e, own: e | 1 << 6,
                    "differ"),
    "absent": (("ram", "ram"), lambda e, own: 0, "differ"),
    "another page": (("rom", "BIOS"), lambda e, own: e + PAGE, "differ"),
    "Monocle's": (("rom", "BIOS"), lambda e, own: own | 5 | 6 << 3,
                  "differ"),
    "no such type": (("ram", "ram"), lambda e, own: e & ~0x38 | 2 << 3,
                     "memory type"),
    "write without read": (("rom", "BIOS"), lambda e, own: e & ~1 | 2,
                           "rights"),
}


@pytest.mark.runs("walk-relocated")
@pytest.mark.parametrize("name", ERRORS)
def test_planted_error_is_found(run, name):
    """One entry of the guest's tables changed, in the copy."""
    found = run("walk-relocated")
    where, change, text = ERRORS[name]
    top = ept.root(int(walk.EPTP.search(found.still.log)[1], 16))
    own = min(page for page, what in found.own.items() if what == "image")
    entry = found.still.leaf_of(top, 4, region(found, *where).gpa)
    wrong = found.still.changed(entry, lambda e: change(e, own))
    with pytest.raises((AssertionError, TableError), match=text):
        walk.check(wrong)
    walk.check(found.still)


@pytest.mark.runs("walk-relocated")
def test_memory_of_monocle_in_the_list_is_found(run):
    """Where list and tables agree on what must not be: the log names another
    page as Monocle's."""
    found = run("walk-relocated")
    still = found.still
    hpa = region(found, "rom", "BIOS").hpa
    wrong = walk.Still(walk.IMAGE.sub(
        f"Monocle 0, at {hpa:#x}-{hpa + PAGE:#x}", still.log), still.read_now)
    wrong.pages, wrong.cr3 = still.pages, still.cr3
    with pytest.raises(AssertionError, match="Monocle is in reach"):
        walk.check(wrong)


@pytest.mark.runs("walk-relocated")
def test_small_page_in_place_of_a_large_one_is_found(run):
    """A 2 MiB page split into 4 KiB pages maps the same, but not as well."""
    found = run("walk-relocated")
    still = found.still
    top = ept.root(int(walk.EPTP.search(still.log)[1], 16))
    gpa = next(leaf[0] for leaf in found.ept if leaf[1] == 2 << 20)
    spare = 0x7ffff000
    leaf = []
    wrong = still.changed(still.leaf_of(top, 4, gpa),
                          lambda e: leaf.append(e) or spare | 7)
    wrong.pages[spare] = b"".join(
        (leaf[0] & ~0x80 | n * PAGE).to_bytes(8, "little")
        for n in range(512))
    with pytest.raises(AssertionError, match="4K, not 2M"):
        walk.check(wrong)


def test_image_is_the_one_that_is_walked():
    """The breakpoint's symbol is where a guest starts."""
    image = str(runs.MONOCLE or BUILD / "monocle.elf")
    assert walk.symbol(image, walk.START_SYMBOL) > walk.OWN_SPACE
