# SPDX-License-Identifier: MIT
"""Calls run down: no circle of files, no arrow from a lower room to a higher
one, no pointer to a function that nobody gave a reason for, and nobody but the
roof knows the machine.

An arrow is a symbol of one object that another one uses, by nm. Since the
rooms have an order, and no arrow runs up, there is no circle of rooms either.
"""
import collections
import functools
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# From the ground up.
ROOMS = ["arch/x86", "kernel", "drivers/pci", "drivers/vtd", "arch/x86/vmx",
         "vmm/core", "vmm/devmodel", "vmm/vcpu", "vmm/load", "vmm/assign",
         "vmm", "boot"]

# Pointers to functions by which a room may call what it cannot name: a file
# (without .c or .h), the pointer, and why it is not a plain call. Kernel and
# devices serve whoever comes; they do not know who that is.
POINTERS = {
    # What all rooms hang on.
    "bus.bus_handler": "a device's ports, MMIO and MSRs",
    "virq.set_line": "a device's interrupt line",
    "virq.send_msi": "a device's message",
    "virq.msi_target": "whose CPU it should come to",
    "vclock.fire": "a device's timer",
    "vclock.changed": "the CPU that serves it sleeps or runs a guest",
    "lapic.kick": "a LAPIC's CPU has to look what it was sent",
    "vm.kick_others": "as lapic's, all but one",
    "percpu.job": "what a parked CPU is woken for",
    "park.job": "as percpu's",
    "traps.host_irq_handler": "the owner of a host interrupt",
    # The host
    "paging.alloc": "pages are the kernel's, the format is the CPU's",
    "paging.to_virt": "as alloc",
    "paging.to_phys": "as alloc",
    "host_irq.compose": "an IOMMU's entry for an IOAPIC pin, if there is one",
    "log_sink.log_page": "the option list waits where the screen is full",
    "panic.panic_dump": "the guest's state, if there is one by then",
    "panic.machine_power_off": "known when the ACPI tables have been read",
    "vtd.stopped": "a device's owner hears that its DMA was stopped",
    # The guest's machine
    "vm.device_stats": "a hypercall's answer about assigned functions",
    "vm.open_windows": "as device_stats",
    "exits.exit_handler": "a row for each instruction that exits",
    "insn.segment_base": "read from the VMCS, and only where it counts",
    "isa.read": "the caller's own, for each byte",
    "isa.write": "as read",
    "apic_bus.eoi": "a LAPIC's EOI goes to the IOAPIC, which sends to LAPICs",
    "ioapic.ended": "an assigned line's EOI, which opens the host's pin",
    "ioapic.routed": "as ended: whose CPU the host's interrupt goes to",
    "pci_bridges.move_ecam": "as no_smm: the map is not the bridge's",
    "pci_bridges.no_smm": "the vCPU loop ends: this firmware cannot run",
    "fw_cfg.fill": "a file that is made when it is asked for",
    "firmware.fill": "as fw_cfg's",
    "pci_bus.read": "a function's configuration space",
    "pci_bus.write": "as read",
    "pci_bus.reset": "as read",
    "pci_assigned.bar_changed": "windows of assigned functions are elsewhere",
    "pci_assigned.reset": "the host's function is reset, too",
    "pci_assigned.interrupts_changed": "and so are their interrupts",
    "uart.put": "the end of the guest's serial line: the console",
    "uart.set_rts": "as put",
    "reset.request": "the vCPU loop ends at the next exit",
    "reset.debug_exit": "as request",
    "i8042.request_reset": "as reset's",
    "acpi_pm.power_off": "as reset's",
    # Tables of functions of the same file, in a struct that others see
    "igd.dsm_size": "differs between generations",
    "igd.gsm_size": "as dsm_size",
}


# --- Arrows --------------------------------------------------------------

def arrows(root, below):
    """{(user, owner): symbols} of the objects below a folder whose sources
    are in root's rooms; a file is named as its source is, without .c."""
    objects = [below / room / f"{path.name.removesuffix('.c')}.o"
               for room in ROOMS for path in (root / room).iterdir()
               if path.suffix in (".c", ".asm")]
    listing = subprocess.run(["nm", "-A", "-g", "-f", "posix", *objects],
                             text=True, capture_output=True, check=True)
    owners, uses = {}, []
    for line in listing.stdout.splitlines():
        path, symbol, kind = line.split()[:3]
        file = path.removeprefix(f"{below}/").removesuffix(".o:")
        if kind in "Uw":
            uses.append((file, symbol))
        else:
            owners[symbol] = file
    found = collections.defaultdict(set)
    for user, symbol in uses:
        if symbol in owners:    # else the linker's own
            found[user, owners[symbol]].add(symbol)
    return found


def height(file):
    return ROOMS.index(file.rpartition("/")[0])


def faults(all_arrows):
    """{arrow: what is wrong with it}"""
    graph = collections.defaultdict(set)
    for user, owner in all_arrows:
        graph[user].add(owner)

    @functools.cache
    def below(file):
        seen, todo = set(), [file]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen
    wrong = {a: "runs up" for a in all_arrows if height(a[0]) < height(a[1])}
    return wrong | {a: "is part of a circle" for a in all_arrows
                    if a not in wrong and a[0] in below(a[1])}


@pytest.fixture(scope="module")
def tree():
    subprocess.run(["make", "-s", "build/monocle.elf"], cwd=ROOT, check=True)
    return arrows(ROOT, ROOT / "build/obj")


def test_calls_run_down(tree):
    assert len(tree) > 300
    wrong = faults(tree)
    assert not wrong, "\n".join(
        f"{user} -> {owner} {what}: {', '.join(sorted(tree[user, owner]))}"
        for (user, owner), what in sorted(wrong.items()))


# --- Pointers to functions -----------------------------------------------

POINTER = re.compile(r"\(\s*\*\s*(?:const\s+)?(\w*)\s*(?:\[[^\]]*\]\s*)*\)\s*\("
                     r"|^typedef [\w\s*]*?(\w+)\(", re.M)
# Of a .c file only what others can reach: what points out of a type or a
# variable of its own alone holds its own functions, or nm sees the arrow.
OUTSIDE = re.compile(r"^(?!static\b)\w[^;{]*", re.M)


def pointers(name, text):
    """The keys in POINTERS of those that it declares."""
    stem, dot, kind = name.rpartition("/")[2].partition(".")
    if kind == "c":
        text = "\n".join(OUTSIDE.findall(text))
    return {f"{stem}.{m[1] or m[2]}" for m in POINTER.finditer(text)}


def sources():
    return {str(p.relative_to(ROOT)): p.read_text()
            for room in ROOMS for p in sorted((ROOT / room).glob("*.[ch]"))}


def test_pointers_to_functions_have_a_reason():
    found = {key: name for name, text in sources().items()
             for key in pointers(name, text)}
    for key, name in found.items():
        assert key in POINTERS, f"{name}: {key}: a plain call, or a reason"
    assert not POINTERS.keys() - found.keys(), "nobody has it: take it out"


# --- struct machine ------------------------------------------------------

MACHINE = re.compile(r"\bstruct\s+machine\b")
ROOF = re.compile(r"vmm/machine\w*\.[ch]|vmm/list\.[ch]|boot/.*")


def know_the_machine(texts):
    return {name for name, text in texts.items()
            if MACHINE.search(text) and not ROOF.fullmatch(name)}


def test_nobody_but_the_roof_knows_the_machine():
    assert not know_the_machine(sources())


# --- Each of these fails where it should ---------------------------------

UP, CIRCLE = "runs up", "is part of a circle"


@pytest.mark.parametrize("files, wrong", [
    ({"boot/a": "int b(void); int a(void) { return b(); }",
      "kernel/b": "int b(void) { return 0; }"}, {}),
    ({"kernel/a": "int b(void); int a(void) { return b(); }",
      "boot/b": "int b(void) { return 0; }"}, {("kernel/a", "boot/b"): UP}),
    # A function that is not called but handed on, in a const table
    ({"kernel/a": "int b(void); int (*const a)(void) = b;",
      "vmm/b": "int b(void) { return 0; }"}, {("kernel/a", "vmm/b"): UP}),
    ({"kernel/a": "extern int b; int a(void) { return b; }",
      "kernel/b": "int c(void); int b; int d(void) { return c(); }",
      "kernel/c": "int a(void); int c(void) { return a(); }",
      "kernel/e": "int a(void); int e(void) { return a(); }"},
     {("kernel/a", "kernel/b"): CIRCLE, ("kernel/b", "kernel/c"): CIRCLE,
      ("kernel/c", "kernel/a"): CIRCLE}),
])
def test_planted_arrows(tmp_path, files, wrong):
    for room in ROOMS:
        (tmp_path / room).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = tmp_path / f"{name}.c"
        path.write_text(text)
        subprocess.run(["gcc", "-c", path, "-o", path.with_suffix(".o")],
                       check=True)
    assert faults(arrows(tmp_path, tmp_path)) == wrong


@pytest.mark.parametrize("name, text", [
    ("kernel/a.h", "struct a {\n\tint n;\n\tvoid (*told)(void *ctx);\n};"),
    ("kernel/a.h", "int a(int n,\n      int (*told)(void *ctx));"),
    ("kernel/a.h", "typedef void (*told)(void *ctx);"),
    ("kernel/a.h", "typedef struct x *told(void *ctx);"),
    ("kernel/a.h", "extern void (*const told[4])(void *ctx);"),
    ("kernel/a.c", "void (*told)(void *ctx);"),
    ("kernel/a.c", "extern void (*told)(void *ctx);"),
    ("kernel/a.c", "int a(int n,\n      int (*told)(void *ctx))\n{\n}"),
])
def test_planted_pointers(name, text):
    assert pointers(name, text) == {"a.told"}


def test_a_file_s_own_pointers_are_no_arrows():
    assert not pointers("kernel/a.c", """
static void (*own)(void);
static const struct {
	void (*row)(void);
} rows[] = {{f}};
static int a(int (*told)(void))
{
	int (*local)(void) = told;
}""")


def test_planted_machines():
    text = "int a(const struct machine *m);"
    assert know_the_machine({
        "vmm/load/a.c": text, "vmm/machine_map.h": text, "vmm/list.c": text,
        "boot/main.c": text, "vmm/lists.c": text, "vmm/physmap.h": "struct "
        "machine_word x;"}) == {"vmm/load/a.c", "vmm/lists.c"}
