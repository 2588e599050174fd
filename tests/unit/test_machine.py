# SPDX-License-Identifier: MIT
"""The guest's machine as a whole: what a reset leaves, which end counts, what
its memory map and its ports are. Its devices are the real ones; the guest is
the test, between vcpu_run()'s call and its return.
"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import devmodel
import fwcfg
import harness

KIB, MIB, GIB, PAGE = 2**10, 2**20, 2**30, 2**12
SOURCES = ["vmm/machine.c", "vmm/machine_map.c", "vmm/machine_windows.c",
           "vmm/boot_order.c", "vmm/physmap.c",
           "vmm/assign/assigned_rom.c", "vmm/assign/assigned_stats.c",
           "vmm/assign/gop.c",
           "vmm/core/bus.c", "vmm/core/guest_mem.c", "vmm/core/vclock.c",
           "vmm/core/vm.c",
           "vmm/load/guest_acpi.c", "vmm/load/aml.c",
           "vmm/load/firmware.c",
           "vmm/load/loader_ram.c", "vmm/load/smbios.c", "kernel/acpi.c",
           "kernel/boot_info.c",
           "vmm/vcpu/msr.c", "vmm/vcpu/pv_eoi.c",
           "vmm/vcpu/guest_cpuid.c", "kernel/phys.c", "kernel/region.c",
           *(f"vmm/devmodel/{name}.c" for name in devmodel.DEVICES),
           "vmm/devmodel/pci_bus.c", "vmm/devmodel/pci_bridges.c",
           "vmm/devmodel/pci_port.c"]
MEMORY = [(0, 0x9f000), (MIB, 63 * MIB), (4 * GIB, 32 * MIB)]
RESET = "functions reset"


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "machine", SOURCES, fakes="tests/unit/machine_fakes.c",
        headers=["tests/unit/machine_fakes.h", "vmm/load/guest_acpi.h", "kernel/phys.h", "kernel/log.h", "vmm/core/guest_mem.h"])


class Machine:
    """Of a host with MEMORY, and functions {slot of bus 0: fields}."""

    def __init__(self, m, functions=(), memory=MEMORY, **options):
        m.reset()
        self.m, self.machine = m, m.fresh_machine()
        self.host = host = self.machine.host
        host.has_vmx, host.tsc_hz = True, 10**9
        host.boot.memory_count = len(memory)
        for i, (base, size, *kind) in enumerate(memory):
            host.boot.memory[i] = {"base": base, "size": size,
                                   "kind": kind[0] if kind else 1}
        host.boot.module_count = 1
        self.words = m.new("char[]", b"kernel quiet")
        host.boot.modules[0] = {"start": 32 * MIB, "size": PAGE,
                                "string": self.words}
        for name, value in options.items():
            setattr(host.options, name, value)
        m.phys_init(m.ffi.addressof(host.boot))
        for i, fields in enumerate(functions):
            host.pci.functions[i] = fields
        host.pci.count = len(functions)
        self.assign = self.machine.assign
        self.bus = m.ffi.addressof(self.machine.vm, "bus")
        m.on_read(lambda kind, at, size: 0 if at == 0x64 else 1
                  if kind == "in" else None)

    def display(self, **fields):
        f = self.m.ffi.addressof(self.host.pci.functions[0])
        for name, value in {"class": 0x300, **fields}.items():
            setattr(f, name, value)
        self.host.pci.count = 1
        self.assign.display, self.assign.vga = f, True
        self.assign.count = 1
        self.assign.functions[0].function = f
        self.assign.functions[0].all = self.m.ffi.addressof(self.assign)
        return f

    def _add(self, bus, dev, **fields):
        pci = self.host.pci
        f = self.m.ffi.addressof(pci.functions[pci.count])
        f.bdf = bus << 8 | dev << 3
        for name, value in fields.items():
            setattr(f, name, value)
        pci.count += 1
        return f

    def give(self, bus, dev, *bars):
        """Assigns a function: its BARs are (base, size, whether ports)."""
        f = self._add(bus, dev)
        for n, (base, size, *io) in enumerate(bars):
            f.bars[n] = {"base": base, "size": size, "io": bool(io)}
        a = self.m.ffi.addressof(self.assign.functions[self.assign.count])
        a.function, a.all = f, self.m.ffi.addressof(self.assign)
        self.assign.count += 1

    def bridge(self, bus, dev, secondary, subordinate, io=0x00f0,
               memory=0x0000fff0, wide=(0x0001fff1, 0, 0)):
        """On the way to what is assigned; no two with one number."""
        f = self._add(bus, dev, header_type=1, secondary_bus=secondary)
        config = self.m.machine_config[dev << 3]
        for at, value in ((0x18, bus | secondary << 8 | subordinate << 16),
                          (0x1c, io), (0x20, memory), (0x24, wide[0]),
                          (0x28, wide[1]), (0x2c, wide[2])):
            for n, byte in enumerate(value.to_bytes(4, "little")):
                config[at + n] = byte
        self.assign.ports[self.assign.port_count] = {
            "host": self.m.ffi.addressof(self.host, "pci"), "function": f}
        self.assign.port_count += 1

    def plan(self):
        return self.m.machine_plan(self.machine)

    def build(self):
        assert self.plan() == 0, self.m.log_text()
        assert self.m.machine_build(self.machine) == 0, self.m.log_text()
        return self

    def run(self, *guests):
        """The guest of each start in turn; how it ends."""
        left = iter(guests)

        def guest():
            next(left)()
            return 0
        self.m.lib.machine_guest = self.m.callback("int(void)", guest, 0)
        how = self.m.machine_run(self.machine)
        assert next(left, None) is None, "a start is missing"
        return how

    def fail(self, function):
        self.m.ffi.memmove(self.m.machine_failing, function.encode() + b"\0",
                           len(function) + 1)

    def notes(self):
        return self.m.string(self.m.machine_notes).splitlines()

    # -- the guest's instructions

    def access(self, space, at, size, value=None):
        a = self.m.new("struct bus_access *", {
            "addr": at, "size": size, "write": value is not None,
            "value": value or 0})
        own = self.m.ffi.addressof(self.machine.cpus[0], "bus")
        bus = self.bus if self.m.bus_is_free(own, space, at, at) else own
        assert self.m.bus_dispatch(bus, space, a) == 0
        return a.value

    def inp(self, port, size=1):
        return self.access(self.m.BUS_PORT, port, size)

    def out(self, port, value, size=1):
        self.access(self.m.BUS_PORT, port, size, value)

    def mem(self, at, value=None):
        return self.access(self.m.BUS_MMIO, at, 4, value)

    def msr(self, n, value=None):
        return self.access(self.m.BUS_MSR, n, 8, value)

    def cmos(self, n, value=None):
        self.out(0x70, n)
        if value is None:
            return self.inp(0x71)
        self.out(0x71, value)

    def pin(self, n, value=None):
        self.mem(0xfec00000, 0x10 + 2 * n)
        return self.mem(0xfec00010, value)

    def timer(self, n):
        """Channel n's status, without OUT."""
        self.out(0x43, 0xe0 | 2 << n)
        return self.inp(0x40 + n) & 0x7f

    def regions(self):
        machine_map = self.machine.vm.map
        return [r for r in machine_map.regions[0:machine_map.count]]

    def region(self, name):
        found = [r for r in self.regions() if self.m.string(r.name) == name]
        assert len(found) == 1, name
        return found[0]

    def reset(self):
        self.out(0xcf9, 6)

    def power_off(self):
        self.out(0x604, 0x2000, 2)


# -- a reset

# A register of each device: how a guest changes it, and how it looks.
REGISTERS = {
    "PIC": (lambda x: x.out(0x21, 0x55), lambda x: x.inp(0x21)),
    "second PIC": (lambda x: x.out(0xa1, 0x55), lambda x: x.inp(0xa1)),
    "PIT": (lambda x: (x.out(0x43, 0x34), x.out(0x40, 0), x.out(0x40, 9)),
            lambda x: x.timer(0)),
    "RTC": (lambda x: x.cmos(11, 0x42), lambda x: x.cmos(11)),
    "UART": (lambda x: x.out(0x3fc, 0x0b), lambda x: x.inp(0x3fc)),
    "UART's line": (lambda x: x.out(0x3fb, 0x03), lambda x: x.inp(0x3fb)),
    "ACPI": (lambda x: x.out(0x602, 1, 2), lambda x: x.inp(0x602, 2)),
    "port 0x92": (lambda x: x.out(0x92, 0), lambda x: x.inp(0x92)),
    "I/O APIC": (lambda x: x.pin(5, 0x31), lambda x: x.pin(5)),
    "local APIC": (lambda x: x.mem(0xfee00080, 0x20),
                   lambda x: x.mem(0xfee00080)),
    "LINT0": (lambda x: x.mem(0xfee00350, 0x10000),
              lambda x: x.mem(0xfee00350)),
    "MTRR": (lambda x: x.msr(0x2ff, 0xc00), lambda x: x.msr(0x2ff)),
    "PCI address": (lambda x: x.out(0xcf8, 0x80000810, 4),
                    lambda x: x.inp(0xcf8, 4)),
}


@pytest.mark.parametrize("exact", [True, False])
def test_a_clock_that_was_measured_is_not_told(m, exact):
    """CPUID 0x15 of the guest would keep it from measuring it better."""
    machine = Machine(m)
    machine.host.tsc_exact = exact
    machine.build()
    vm = machine.machine.vm
    assert vm.features.tsc_hz == (10**9 if exact else 0)
    assert vm.clock.tsc_hz == 10**9



@pytest.mark.parametrize("name", REGISTERS)
def test_a_reset_leaves_each_device_as_the_first_start_has_it(m, name):
    change, look = REGISTERS[name]
    x = Machine(m).build()
    seen = []

    def first():
        seen.append(look(x))
        change(x)
        seen.append(look(x))
        x.reset()

    def second():
        seen.append(look(x))
        x.power_off()
    assert x.run(first, second) == m.VM_POWER_OFF
    assert seen[0] == seen[2] != seen[1], seen


def test_a_command_that_waits_for_its_byte_is_forgotten(m):
    """The keyboard gets what the next guest writes first."""
    x = Machine(m).build()

    def second():
        m.clear_events()
        x.out(0x60, 0xf4)
        assert ("out", 0x60, 1, 0xf4) in m.events()
        x.power_off()
    x.run(lambda: (x.out(0x64, 0xd1), x.reset()), second)


def test_the_reset_ports_take_a_second_reset(m):
    """Both react to an edge."""
    x = Machine(m).build()
    assert x.run(x.reset, lambda: x.out(0x92, 1), lambda: x.out(0x92, 1),
                 x.reset, lambda: x.out(0x64, 0xfe),
                 x.power_off) == m.VM_POWER_OFF
    assert x.machine.resets == 5


def test_the_8259s_work_by_themselves_at_a_start(m):
    """LINT0 is their wire: SDM 10.1 and MP 1.4, 3.6.2.1."""
    x = Machine(m).build()
    x.run(lambda: (x.power_off(), x.mem(0xfee00350) == 0x700 or 1 / 0))


# -- the end

@pytest.mark.parametrize("words, end", [
    ("power_off", "VM_POWER_OFF"), ("power_off reset", "VM_POWER_OFF"),
    ("code", "VM_EXIT_CODE"), ("code power_off reset", "VM_EXIT_CODE")])
def test_the_first_word_counts(m, words, end):
    """A driver that switches off may go on to try a reset."""
    x = Machine(m).build()
    x.code = lambda: x.out(0xf4, 7)
    how = x.run(lambda: [getattr(x, word)() for word in words.split()])
    assert how == getattr(m, end)
    assert x.machine.vm.exit_code == (7 if "code" in words else 0)
    # Nothing that was assigned goes on by itself.
    assert x.notes()[-1] == RESET


def test_a_guest_that_cannot_be_loaded_again_stops(m):
    x = Machine(m).build()

    def first():
        m.lib.machine_fails = -m.EINVAL
        x.reset()
    assert x.run(first) == m.VM_STOP
    x = Machine(m).build()
    m.lib.machine_fails = -m.EINVAL
    assert x.run() == m.VM_REFUSED


@pytest.mark.parametrize("policy, starts", [
    ("AUTO", [False, True]), ("NEVER", [False, False]),
    ("REBOOT", [False, True]), ("ALWAYS", [True, True])])
def test_when_the_display_is_reset(m, policy, starts):
    """Its video BIOS brings the picture back."""
    x = Machine(m, igd_reset=getattr(m, f"RESET_{policy}")).build()
    x.run(x.reset, x.power_off)
    kernel = "kernel"
    want = []
    for display in starts:
        if display:
            kernel = "kernel, with a screen"
        want += ["functions and display reset", "video BIOS"] if display \
            else [RESET]
        want.append(kernel)
    assert x.notes() == want + [RESET]


def test_a_display_that_uefi_draws_on_keeps_its_mode(m):
    x = Machine(m).build()
    x.machine.firmware.uefi = True
    x.run(x.reset, x.power_off)
    assert x.notes() == [RESET, "kernel", RESET, "kernel", RESET]


def test_waiting_cpus_look_when_the_devices_have_been_reset(m):
    """For what these had sent them before."""
    x = Machine(m).build()
    x.machine.vm.smp = True
    x.run(x.reset, x.power_off)
    assert [note.split(",")[0] for note in x.notes()
            if note.startswith(("kernel", "kick"))] == ["kernel", "kick"] * 2


@pytest.mark.parametrize("policy, lost", [
    ("AUTO", []), ("NEVER", []), ("REBOOT", [1]), ("ALWAYS", [0, 1])])
@pytest.mark.parametrize("method", ["FLR", "NONE"])
def test_no_video_bios_brings_the_picture_back(m, policy, lost, method):
    """By default it is not taken then; else the guest is told of no screen,
    and the user, who may sit before a dark one, once a start."""
    x = Machine(m, [{"class": 0x300}],
                igd_reset=getattr(m, f"RESET_{policy}"))
    x.display()
    x.host.boot.fb = {"kind": m.DISPLAY_TEXT}
    m.lib.machine_no_rom = True
    m.lib.machine_reset = getattr(m, f"PCI_RESET_{method}")
    x.build().run(x.reset, x.power_off)
    dark = lost if method == "FLR" else []
    starts = ["functions and display reset" if n in lost else RESET
              for n in (0, 1)]
    kernels = ["kernel" if dark and n >= dark[0] else "kernel, with a screen"
               for n in (0, 1)]
    assert x.notes()[-5:] == [starts[0], kernels[0], starts[1], kernels[1],
                              RESET]
    assert m.log_text().count("has taken the picture of 00:00.0") == len(dark)


def test_closed_windows_are_closed_again(m):
    x = Machine(m, igd=m.IGD_CLOSED).build()
    x.run(x.reset, x.power_off)
    assert x.notes().count("windows closed") == 2


def test_a_boot_sector_finds_the_firmware_restored(m):
    x = Machine(m, guest=m.GUEST_BIOS, ram=m.RAM_IDENTITY,
                igd_reset=m.RESET_NEVER).build()
    x.run(x.reset, x.power_off)
    one = [RESET, "firmware's memory restored", "boot sector"]
    assert x.notes() == one + one + [RESET]


# -- modules

@pytest.mark.parametrize("text, said", [
    (b"kernel a b", None), (b"kernel", None), (b"kernelx", "no guest"),
    (b"initrd", "no guest"), (b"guest", "'guest': its first word")])
def test_a_module_is_what_its_first_word_says(m, text, said):
    x = Machine(m)
    x.words = m.new("char[]", text)
    x.host.boot.modules[0].string = x.words
    assert (x.plan() == 0) == (said is None)
    if said:
        assert said in m.log_text()
    else:
        assert m.string(x.machine.loader.cmdline) == text[7:].decode()


def test_modules_of_a_guest(m):
    """In their order, each with what follows its role."""
    x = Machine(m)
    x.words = [m.new("char[]", text) for text in (
        b"kernel", b"module one a", b"initrd", b"module")]
    x.host.boot.module_count = len(x.words)
    for n, words in enumerate(x.words):
        module = x.host.boot.modules[n]
        module.start, module.size = 0x1000 * (n + 1), 5 + n
        module.string = words
    assert x.plan() == 0
    found = x.machine.loader
    assert [(m.string(f.string), f.size) for f in
            found.modules[0:found.module_count]] == [("one a", 6), ("", 8)]


# -- memory

@pytest.mark.parametrize("hole", [None, 40 * MIB])
def test_cmos_says_where_memory_ends(m, hole):
    """Behind 16 MiB, and behind 4 GiB, each in 64 KiB; as BIOSes do. What is
    behind a hole does not count: there is no word for where the hole is."""
    x = Machine(m)
    if hole:
        m.region_pin_hole(m.ffi.addressof(x.machine.vm, "map"), hole, MIB,
                          b"pinned")
    x.build()
    ends = {}
    for r in x.regions():
        if r.e820 == m.E820_RAM:    # neighbours are one piece
            start = next((s for s, e in ends.items() if e == r.gpa), r.gpa)
            ends[start] = r.gpa + r.size
    low = next(e for s, e in ends.items() if s <= MIB < e)
    said = []

    def look():
        said.extend([x.cmos(0x34) | x.cmos(0x35) << 8,
                     x.cmos(0x5b) | x.cmos(0x5c) << 8 | x.cmos(0x5d) << 16,
                     x.cmos(0x2e) << 8 | x.cmos(0x2f),
                     sum(x.cmos(n) for n in range(0x10, 0x2e))])
        x.power_off()
    x.run(look)
    assert low == hole if hole else low > 56 * MIB
    assert said[0] == (low - 16 * MIB) // (64 * KIB)
    assert said[1] == (ends[4 * GIB] - 4 * GIB) // (64 * KIB) > 0
    assert said[2] == said[3] > 0


def test_the_guests_memory_is_empty(m):
    """What another system left is not this one's."""
    x = Machine(m)
    assert x.plan() == 0
    ram = max(x.regions(), key=lambda r: r.size)
    host = m.ffi.cast("char *", m.phys_to_virt(ram.hpa))
    host[0] = host[ram.size - 1] = b"x"
    assert m.machine_build(x.machine) == 0
    assert host[0] == host[ram.size - 1] == b"\0"


def test_acpi_tables_lie_below_the_devices(m):
    """And the RSDP, in the BIOS area, leads to them (ACPI 5.2.5.1). The FACS
    among them is no memory that a kernel may take back (ACPI 15.2)."""
    x = Machine(m).build()
    x.run(x.power_off)
    tables, bios = x.region("ACPI tables"), x.region("BIOS")
    assert tables.gpa + tables.size == 64 * MIB
    assert (tables.e820, bios.e820) == (m.E820_NVS, m.E820_RESERVED)
    area = bytes(m.ffi.buffer(m.phys_to_virt(bios.hpa), bios.size))
    at = area.index(b"RSD PTR ")
    xsdt = int.from_bytes(area[at + 24:at + 32], "little")
    assert tables.gpa <= xsdt < tables.gpa + tables.size
    assert area[:at] == b"\xff" * at    # and no SMBIOS, as the host has none
    assert set(area[at + 36:]) == {0xff}


@pytest.mark.parametrize("serials", [False, True])
def test_smbios_is_in_the_bios_area(m, serials):
    """What the host's says, for drivers that go by it (DSP0134, 5.2)."""
    x = Machine(m, serials=serials)
    table = b"\1\x1b\1\0\1\2\0\3" + bytes(19) + b"Maker\0Model\0SN\0\0" + \
        b"\x7f\4\2\0\0\0"
    entry = bytearray(b"_SM3_\0\x18\3\2\0\1\0" +
                      len(table).to_bytes(4, "little") +
                      (0xe0000).to_bytes(8, "little"))
    entry[5] = -sum(entry) & 0xff
    for at, data in ((0xe0000, table), (0xf4560, entry)):
        m.ffi.buffer(m.phys_to_virt(at), len(data))[:] = bytes(data)
    assert x.plan() == 0
    m.ffi.buffer(m.phys_to_virt(0xf4560), 5)[:] = bytes(5)
    bios = x.region("BIOS")
    area = bytes(m.ffi.buffer(m.phys_to_virt(bios.hpa), bios.size))
    at = area.index(b"_SM3_")
    assert at % 16 == 0 and at >= 0xf0000 - bios.gpa
    start = int.from_bytes(area[at + 16:at + 24], "little") - bios.gpa
    assert area[start:start + 8] == table[:8] and b"Model\0" in area
    assert (b"\0SN\0" in area) == serials


@pytest.mark.parametrize("status, keyboard", [(0x1c, True), (0xff, False)])
@pytest.mark.parametrize("vga", [True, False])
def test_acpi_tells_of_what_is_there(m, status, keyboard, vga):
    x = Machine(m)
    x.assign.vga = vga
    m.on_read(lambda kind, at, size: status if at == 0x64 else
              1 if kind == "in" else None)
    assert x.plan() == 0
    tables = x.region("ACPI tables")
    raw = bytes(m.ffi.buffer(m.phys_to_virt(tables.hpa), tables.size))
    at = raw.index(b"FACP")
    assert bool(raw[at + 109] & 2) == keyboard == (b"PS2K" in raw)
    assert bool(raw[at + 109] & 4) != vga


def rom(x, size):
    """Its legacy image is the second one."""
    data = x.m.new(f"u8[{512 + size}]", b"\xaa" * 512 + b"\x55" * size)
    x.assign.functions[0].rom = {"data": data, "legacy": data + 512,
                                 "legacy_size": size}
    return data


@pytest.mark.parametrize("closed", [False, True])
def test_the_video_bios_is_where_vga_has_it(m, closed):
    """igd=closed keeps it from the guest; what is behind it stays."""
    x = Machine(m, igd=m.IGD_CLOSED if closed else m.IGD_OFF)
    x.display()
    x.keep = rom(x, 0x8400)
    m.machine_map(x.machine)
    area = x.region("video BIOS" if closed else "BIOS")
    assert area.gpa == 0xc0000
    assert bytes(m.ffi.buffer(m.phys_to_virt(area.hpa), 0x8401)) == \
        b"\x55" * 0x8400 + b"\xff"
    assert area.cpu == (0 if closed else m.REGION_RX)
    assert (area.kind, area.memtype, area.dma) == (m.REGION_ROM,
                                                   m.MEMTYPE_WB, 0)
    windows = x.machine.vm.windows
    assert windows.count == closed
    if closed:
        rest = x.region("BIOS")
        assert (area.size, rest.gpa, rest.size) == (0x9000, 0xc9000, 0x37000)
        assert rest.hpa == area.hpa + 0x9000 and rest.cpu == m.REGION_RX
        assert windows.regions[0].gpa == 0xc0000 and windows.regions[0].cpu
    assert m.virt_to_phys(x.machine.rsdp) & 0xfff == \
        (area.hpa + m.BIOS_RSDP - 0xc0000) & 0xfff


@pytest.mark.parametrize("ecam, last, subordinate, at", [
    (0xf0000000, 255, 0, 0xf0000000), (0xf0000000, 3, 3, 0xf0000000),
    # The host's has too few, or none; ours on its own size (PCIe 7.2.2).
    (0xf0000000, 3, 4, 0xe0000000), (0, 0, 2, 0xe0000000)])
def test_where_configuration_space_is(m, ecam, last, subordinate, at):
    x = Machine(m)
    x.host.pci.ecam, x.host.pci.ecam_last_bus = ecam, last
    x.bridge(0, 1, 1, subordinate)
    assert m.machine_map(x.machine) == 0
    hole = x.region("ECAM")
    assert (hole.gpa, hole.size) == (at, (subordinate + 1) * MIB)
    assert x.machine.roots[0].last_bus == subordinate


def test_configuration_space_is_aligned_where_something_is_in_the_way(m):
    x = Machine(m)
    x.bridge(0, 1, 1, 2)
    m.region_pin_hole(m.ffi.addressof(x.machine.vm, "map"), 0xe0000000, MIB,
                      b"a BAR")
    assert m.machine_map(x.machine) == 0
    assert x.region("ECAM").gpa == 0xe0400000


def test_room_that_is_just_large_enough_has_configuration_space(m):
    x = Machine(m)
    x.bridge(0, 1, 1, 3)
    for at, end in (0xe0000000, 0xe8000000), (0xe8400000, 0xfec00000):
        m.region_pin_hole(m.ffi.addressof(x.machine.vm, "map"), at, end - at,
                          b"BARs")
    assert m.machine_map(x.machine) == 0
    assert (x.region("ECAM").gpa, x.machine.ecam) == (0xe8000000,) * 2


def test_configuration_space_of_many_buses_finds_its_place(m):
    """A root bus at 0xd0 needs 209 MiB; BARs are in the way at the top."""
    x = Machine(m)
    x.give(0xd0, 3)
    for at in 0xe0000000, 0xf0000000:
        m.region_pin_hole(m.ffi.addressof(x.machine.vm, "map"), at, MIB,
                          b"a BAR")
    assert m.machine_map(x.machine) == 0
    ecam = x.region("ECAM")
    assert (ecam.gpa, ecam.size) == (256 * MIB, 0xd1 * MIB)


def test_without_room_for_configuration_space_the_guest_has_the_ports(m):
    x = Machine(m)
    x.give(0xd0, 3)
    for at in range(64 * MIB, 4 * GIB - 64 * MIB, 128 * MIB):
        m.region_pin_hole(m.ffi.addressof(x.machine.vm, "map"), at, PAGE,
                          b"a BAR")
    assert m.machine_map(x.machine) == 0
    assert x.machine.ecam == 0
    assert "ECAM" not in [m.string(r.name) for r in x.regions()]
    assert [line for level, line in m.log_lines() if level == m.LOG_WARN] == [
        "pci: no room below 4 GiB for ECAM of 209 buses; the guest has ports "
        "0xcf8 and 0xcfc alone"]


# -- PCI roots

def test_roots_are_those_that_lead_to_what_is_assigned(m):
    """Bus 0's has no more buses than there are in front of the next; a
    bridge's last bus may be junk."""
    x = Machine(m)
    x.bridge(0, 0x1c, 1, 255)
    x.give(1, 0)
    x.give(0x64, 5)
    x.give(0x64, 6)
    x.bridge(0x80, 0x1d, 0x81, 0)
    x.give(0x81, 2)
    x.bridge(0x80, 0x1b, 0x82, 0x84)
    x.give(0x82, 0x1a)
    assert m.machine_roots(x.machine) == 0
    roots = x.machine.roots[0:x.machine.root_count]
    assert [(r.bus, r.last_bus, r.devices) for r in roots] == [
        (0, 0x63, 0xffffffff), (0x64, 0x64, 1 << 5 | 1 << 6),
        (0x80, 0x84, 1 << 0x1d | 1 << 0x1b)]


def test_too_many_roots_are_refused(m):
    x = Machine(m)
    for n in range(m.GUEST_ACPI_ROOTS):
        assert m.machine_roots(x.machine) == 0
        x.give(0x10 + n, n)
    assert x.plan() < 0
    level, line = m.log_lines()[-1]
    assert level == m.LOG_ERROR and "-BB:DD.F" in line


def shared_out(m, x):
    """{root: [(first, last)]} of addresses, and of ports."""
    assert m.machine_map(x.machine) == 0, m.log_text()
    cfg = m.new("struct guest_acpi_config *")
    m.machine_windows(x.machine, cfg)
    out = {}, {}
    for w in cfg.windows[0:cfg.window_count]:
        out[w.ports].setdefault(w.root, []).append(
            (w.base, w.base + w.size - 1))
    return out


LOW, TOP = 64 * MIB, 0xfec00000 - 1     # MEMORY's end, the I/O APIC


def test_one_root_passes_on_all(m):
    x = Machine(m)
    x.give(0, 2, (0xd0000000, 16 * MIB), (0xe000, 64, True),
           (64 * GIB, GIB), (72 * GIB, MIB))
    ecam = 0xe0000000, 0xe00fffff
    assert shared_out(m, x) == (
        {0: [(0xa0000, 0xbffff), (LOW, ecam[0] - 1), (ecam[1] + 1, TOP),
             (64 * GIB, 72 * GIB + MIB - 1)]},
        {0: [(0, 0xcf7), (0xd00, 0xffff)]})


def test_another_root_passes_on_what_is_behind_it(m):
    """From its first BAR to its last one; where bus 0's is between, not."""
    x = Machine(m)
    x.give(0, 2, (0x90000000, MIB), (0xe000, 64, True), (64 * GIB, GIB))
    x.give(0x64, 5, (0x88000000, PAGE), (0x88010000, PAGE),
           (0x98000000, 256), (0xd000, 32, True))
    x.give(0x64, 6, (80 * GIB, GIB))
    x.bridge(0x80, 0x1d, 0x81, 0x82, io=0xc1b1, memory=0xc070c010,
             wide=(0x8ff18001, 16, 16))
    x.give(0x81, 2, (0xc0200000, MIB), (0xb000, 8, True))
    found = shared_out(m, x)
    assert found == ({
        0: [(0xa0000, 0xbffff), (LOW, 0x88000000 - 1),
            (0x88011000, 0x98000000 - 1), (0x98000100, 0xc0100000 - 1),
            (0xc0800000, 0xe0000000 - 1), (0xe8300000, TOP),
            (64 * GIB, 65 * GIB - 1)],
        1: [(0x88000000, 0x88010fff), (0x98000000, 0x980000ff),
            (80 * GIB, 81 * GIB - 1)],
        2: [(0xc0100000, 0xc07fffff),
            (16 * 4 * GIB + 0x80000000, 16 * 4 * GIB + 0x90000000 - 1)]}, {
        0: [(0, 0xcf7), (0xd00, 0xafff), (0xd020, 0xffff)],
        1: [(0xd000, 0xd01f)], 2: [(0xb000, 0xcfff)]})


def test_the_display_has_vga_with_it(m):
    x = Machine(m)
    x.give(0x64, 5, (0x88000000, 16 * MIB))
    x.assign.display, x.assign.vga = x.assign.functions[0].function, True
    assert shared_out(m, x) == ({
        0: [(LOW, 0x88000000 - 1), (0x89000000, 0xe0000000 - 1),
            (0xe6500000, TOP)],
        1: [(0xa0000, 0xbffff), (0x88000000, 0x88ffffff)]}, {
        0: [(0, 0x3af), (0x3e0, 0xcf7), (0xd00, 0xffff)],
        1: [(0x3b0, 0x3df)]})


def test_a_bar_that_lies_in_two_windows_ends_the_first(m):
    """Over ECAM, which a plan refuses."""
    x = Machine(m)
    x.give(0x64, 5, (0xdf000000, 32 * MIB))
    assert shared_out(m, x)[0][1] == [(0xdf000000, 0xe0000000 - 1)]


def test_a_bar_without_an_address_is_in_no_window(m):
    x = Machine(m)
    x.give(0x64, 5, (0, MIB), (0, 32, True))
    assert [set(out) for out in shared_out(m, x)] == [{0}, {0}]


PLACES = st.lists(st.tuples(
    st.sampled_from([0, 0x40, 0x80]), st.integers(0x80, 0xd0),
    st.integers(1, 64)), max_size=12, unique_by=lambda p: p[1])


@settings(max_examples=60, deadline=None)
@given(PLACES)
def test_no_two_roots_pass_on_the_same(m, places):
    """And each BAR is in one window, of its own root."""
    x = Machine(m)
    for n, (bus, at, size) in enumerate(places):
        x.give(bus, n + 1, (at << 24, size * PAGE))
    found = shared_out(m, x)[0]
    rows = sorted((*window, root) for root, windows in found.items()
                  for window in windows)
    assert all(a[1] < b[0] for a, b in zip(rows, rows[1:]))
    buses = [r.bus for r in x.machine.roots[0:x.machine.root_count]]
    for bus, at, size in places:
        assert any(first <= at << 24 and (at << 24) + size * PAGE <= last + 1
                   for first, last in found[buses.index(bus)])


# -- ports

def opened(m, x):
    bitmap = m.ffi.cast("u8 *", x.machine.vm.io_bitmap)
    ports = [p for p in range(0x10000) if not bitmap[p // 8] >> p % 8 & 1]
    return {(run[0][1], run[-1][1]) for _, group in itertools.groupby(
        enumerate(ports), lambda pair: pair[1] - pair[0])
        for run in [list(group)]}


VGA, VBE = {(0x3b0, 0x3bb), (0x3c0, 0x3df)}, {(0x1ce, 0x1d0)}


@pytest.mark.parametrize("display, vga, ports", [
    (None, True, set()), ((0x1002, 1), True, VGA), ((0x1002, 1), False, set()),
    ((0x1234, 0x1111), True, VGA | VBE), ((0x1234, 0x1112), True, VGA)])
def test_ports_of_the_display_alone_are_open(m, display, vga, ports):
    """To the last one: COM1's and the floppy's neighbours are not its."""
    x = Machine(m)
    if display:
        x.display(vendor=display[0], device=display[1])
        x.assign.vga = vga
    x.build()
    assert opened(m, x) == ports


@pytest.mark.parametrize("port, bits, lent", [
    (0x1808, 24, True), (0xb008, 32, True), (0x608, 24, True),
    (0, 24, False), (0x1808, 0, False), (0x3f8, 24, False),
    (0x604, 24, False), (0xcfc, 24, False), (0x3c0, 24, False),
    (0xf03c, 24, False), (0xf000, 24, False), (0xf040, 24, True)])
def test_the_hosts_timer_is_open_where_nothing_else_is(m, port, bits, lent):
    """Its four ports; the guest's FADT names it, or else Monocle's own."""
    x = Machine(m)
    x.display(vendor=0x1002, device=1).bars[4] = {
        "base": 0xf000, "size": 64, "io": True}
    m.on_read(lambda kind, at, size: 0x12345678 if at == port else 1
              if kind == "in" else None)
    x.host.power.pm_timer, x.host.power.pm_timer_bits = port, bits
    x.build()
    assert opened(m, x) == VGA | ({(port, port + 3)} if lent else set())
    assert ("reads the host's PM timer" in m.log_text()) == lent
    pm = x.machine.acpi_pm
    assert (pm.port, pm.bits) == ((port, bits) if lent else (0x608, 32))
    if lent:
        assert x.inp(port, 4) & 0xffffff == x.inp(0x608, 4) & 0xffffff == \
            0x345678
        # Nor may a function's ports move there.
        assert not m.bus_is_free(x.bus, m.BUS_PORT, port, port + 3)


# -- what a display shows, and its ROM

@pytest.mark.parametrize("base, io, vga, told", [
    (0xe0000000, False, False, True), (0xe0000000, False, True, True),
    (0xd0000000, False, False, False), (0xd0000000, False, True, True),
    (0xe0000000, True, False, False), (0xdf000000, False, False, True),
    (0xe0000001, False, False, False), (0xde000000, False, False, False),
    (0xde001000, False, False, True)])
@pytest.mark.parametrize("bar", [0, 5])
def test_a_screen_is_the_guests_where_its_card_shows_it(m, base, io, vga,
                                                        told, bar):
    x = Machine(m)
    f = x.display()
    x.assign.vga = vga
    f.bars[bar] = {"base": base, "size": 0x2000000, "io": io}
    x.host.boot.fb = {"kind": m.DISPLAY_RGB, "base": 0xe0000000}
    assert x.plan() == 0
    assert bool(x.machine.loader.screen) == told


def test_where_the_loader_has_no_screen_none_is_shown(m):
    """Nor by a BAR that has no address."""
    x = Machine(m)
    x.display().bars[0] = {"base": 0, "size": 0x2000000}
    x.assign.vga = False
    assert x.plan() == 0 and not x.machine.loader.screen


@pytest.mark.parametrize("first, display, said", [
    (0, True, None), (1, True, "the ROM of 00:00.0, is another device's"),
    (0, False, "no display is assigned")])
def test_a_file_is_the_displays_rom(m, first, display, said):
    x = Machine(m)
    if display:
        x.assign.igd.function = x.display()
    x.rom = m.new("char[]", b"rom FILE")
    x.host.boot.modules[1] = {"start": 33 * MIB, "size": 0x8000,
                              "string": x.rom}
    m.ffi.cast("u8 *", m.phys_to_virt(33 * MIB))[0] = first
    x.host.boot.module_count = 2
    assert (x.plan() == 0) == (said is None)
    assert said in m.log_text() if said else \
        x.assign.functions[0].rom.length == 0x8000
    assert ("igd: ROM of 32768 bytes" in m.log_text()) == (said is None)
    assert said is None or "igd: ROM" not in m.log_text()
    assert not x.notes()


@pytest.mark.parametrize("is_display, vga, shadow", [
    (True, True, True), (True, False, False), (False, True, False)])
def test_the_shadow_is_the_displays(m, is_display, vga, shadow):
    """At 0xC0000 lies its ROM, and nobody else's."""
    x = Machine(m)
    x.display()
    x.assign.vga = vga
    if not is_display:
        x.assign.display = m.ffi.NULL
    assert m.assigned_find_roms(m.ffi.addressof(x.assign)) == 0
    assert x.notes() == ["ROM read, or its shadow" if shadow else "ROM read"]


@pytest.mark.parametrize("is_display, uefi", [
    (True, True), (True, False), (False, True)])
def test_the_picture_is_the_display_s_where_uefi_starts_the_guest(
        m, is_display, uefi):
    x = Machine(m)
    f = x.display()
    f.bars[0] = {"base": 0xe0000000, "size": 1 << 24}
    x.host.boot.fb = {
        "kind": m.DISPLAY_RGB, "base": 0xe0000000, "pitch": 4096,
        "width": 1024, "height": 768, "bpp": 32, "red_pos": 16,
        "green_pos": 8, "red_size": 8, "green_size": 8, "blue_size": 8}
    x.assign.uefi = uefi
    if not is_display:
        x.assign.display = m.ffi.NULL
    assert m.assigned_find_roms(m.ffi.addressof(x.assign)) == 0
    assert x.assign.functions[0].rom.efi == (is_display and uefi)


def test_each_start_counts_from_0(m):
    x = Machine(m)
    x.display(bdf=0x10)
    all_, a = m.ffi.addressof(x.assign), x.assign.functions[0]
    vtd = m.new("struct vtd *", {"faults": 100})
    x.assign.vtd = vtd
    out = m.new("struct device_stats *")
    m.assigned_stats_reset(m.ffi.addressof(a))
    a.config.accesses, a.stats.mmio, a.stats.interrupts = 3, 4, 5
    vtd.faults += 2
    assert m.assigned_stats(all_, 0, out)
    assert (out.bdf, out.config, out.mmio, out.interrupts, out.faults) == \
        (0x10, 3, 4, 5, 2)
    assert not m.assigned_stats(all_, 1, out)
    m.assigned_stats_log(all_)
    assert m.log_text().endswith("stats: 00:02.0: exits: 3 configuration, "
                                   "4 MMIO, 0 ports; 5 interrupts, 0 storms, "
                                   "2 faults")
    m.assigned_stats_reset(m.ffi.addressof(a))
    assert m.assigned_stats(all_, 0, out)
    assert (out.bdf, out.config, out.mmio, out.interrupts, out.faults) == \
        (0x10, 0, 0, 0, 0)


# -- what fails on the way to a guest

@pytest.mark.parametrize("step, said, options", [
    ("assigned_choose", None, {}), ("assigned_regions", None, {}),
    ("bios_regions", None, {"guest": 1}), ("loader_check", None, {}),
    ("rom_init_check", None, {"rom_init": True}),
    ("rom_init_check", None, {"rom_init": True, "guest": 1}),
    *((step, "page tables cannot be built (error 5)", {})
      for step in ("ept_init", "ept_map_list", "vtd_domain_create"))])
def test_what_cannot_be_planned_is_refused(m, step, said, options):
    """By that step's own line, or by one for all tables."""
    assert m.GUEST_BIOS == 1
    x = Machine(m, **options)
    x.host.has_vtd = True
    x.fail(step)
    assert x.plan() < 0
    errors = [t for level, t in m.log_lines() if level == m.LOG_ERROR]
    assert len(errors) == (1 if said else 0)
    assert not said or said in errors[0]


def test_a_video_bios_that_cannot_be_closed_is_an_error(m):
    x = Machine(m, igd=m.IGD_CLOSED)
    x.display()
    x.keep = rom(x, 0x8400)
    x.fail("assigned_window")
    assert m.machine_map(x.machine) == -m.EIO


@pytest.mark.parametrize("step, has", [
    ("ept_init", "has_vmx"), ("vtd_domain_create", "has_vtd")])
def test_what_the_host_does_not_have_is_not_built(m, step, has):
    x = Machine(m)
    x.host.has_vtd = True
    setattr(x.host, has, False)
    x.fail(step)
    assert x.plan() == 0


# Of each device one address that it has alone.
PLACES = [("BUS_MMIO", 0xfec00000), ("BUS_PORT", 0x20),
          ("BUS_PORT", 0xa0), ("BUS_PORT", 0x40), ("BUS_PORT", 0x70),
          ("BUS_PORT", 0x3f8), ("BUS_PORT", 0x60), ("BUS_PORT", 0x600),
          ("BUS_PORT", 0x92), ("BUS_PORT", 0xcf8),
          ("BUS_MMIO", 0xe0000000)]


def taken(x, space, at):
    handler = x.m.callback("int(void *, struct bus_access *)",
                           lambda dev, access: 0, 0)
    return x.m.bus_register(x.bus, getattr(x.m, space), at, at, handler,
                            x.m.NULL, b"taken")


@pytest.mark.parametrize("space, at", PLACES)
def test_a_device_that_has_no_place_is_an_error(m, space, at):
    x = Machine(m)
    assert x.plan() == 0
    assert taken(x, space, at) == 0
    assert m.machine_build(x.machine) < 0
    level, line = m.log_lines()[-1]
    assert level == m.LOG_ERROR and "machine cannot be built (error" in line
    assert not m.machine_interrupt(1), "the host is left alone"


@pytest.mark.parametrize("step, options", [
    ("assigned_init", {}), ("vcpu_init", {}), ("bios_save", {"guest": 1})])
def test_a_machine_that_cannot_be_built(m, step, options):
    x = Machine(m, **options)
    assert x.plan() == 0
    x.fail(step)
    assert m.machine_build(x.machine) == -m.EIO
    assert "the guest's machine cannot be built (error 5)" in m.log_text()


@pytest.mark.parametrize("space, at", [("BUS_MMIO", 0), ("BUS_PORT", 0)])
def test_each_place_counts_by_itself(m, space, at):
    x = Machine(m)
    assert x.plan() == 0 and taken(x, space, at) == 0
    assert m.machine_build(x.machine) == 0


@pytest.mark.parametrize("memory, said", [
    ([], "too little memory for the guest's BIOS area"),
    ([(4 * GIB, 64 * MIB)], "too little memory below 4 GiB; at least 16 MiB"),
    ([(0, 0x9f000), (4 * GIB, 64 * MIB, 2)], "16 MiB")])
def test_too_little_memory_is_said(m, memory, said):
    x = Machine(m, memory=memory)
    assert m.machine_map(x.machine) == -m.ENOMEM
    (level, line), = [row for row in m.log_lines() if row[0] == m.LOG_ERROR]
    assert said in line


# -- wires

def irr(x, vector):
    """The local APIC's (SDM 10.8.4)."""
    x.m.lapic_collect(x.m.ffi.addressof(x.machine.cpus[0], "lapic"))
    return bool(x.mem(0xfee00200 + vector // 32 * 0x10) >> vector % 32 & 1)


def at_8259(x, line):
    """Its IRR (8259A, OCW3)."""
    port = 0x20 if line < 8 else 0xa0
    x.out(port, 0x0a)
    return bool(x.inp(port) >> line % 8 & 1)


def wired(x, pin, line):
    """Where a rising edge is seen: by the I/O APIC's pin, by the 8259s."""
    x.mem(0xfee000f0, 0x1ff)
    x.mem(0xfec00000, 0x11 + 2 * pin)
    x.mem(0xfec00010, 0)
    x.pin(pin, 0x40 + pin)
    x.machine.virq.set_line(x.machine.virq.ctx, line, False)
    before = irr(x, 0x40 + pin), line < 16 and at_8259(x, line)
    x.machine.virq.set_line(x.machine.virq.ctx, line, True)
    after = irr(x, 0x40 + pin), line < 16 and at_8259(x, line)
    assert before == (False, False)
    return after


@pytest.mark.parametrize("line, pin", [
    (0, 2), (1, 1), (4, 4), (8, 8), (12, 12), (15, 15), (16, 16), (19, 19)])
def test_a_line_is_an_8259s_and_a_pin(m, line, pin):
    """The timer's pin is 2, as the MADT says; PCI's are the I/O APIC's."""
    x = Machine(m).build()

    def guest():
        x.out(0x21, 0xff)
        x.out(0xa1, 0xff)
        x.seen = wired(x, pin, line)
        x.power_off()
    x.run(guest)
    assert x.seen == (True, line < 16)


def test_a_message_arrives(m):
    x = Machine(m).build()

    def guest():
        x.mem(0xfee000f0, 0x1ff)
        x.machine.virq.send_msi(x.machine.virq.ctx, 0xfee00000, 0x51)
        # An NMI has no vector (SDM 10.11.2), whatever its data say.
        x.machine.virq.send_msi(x.machine.virq.ctx, 0xfee00000, 0x450)
        x.seen = [irr(x, vector) for vector in (0x50, 0x51)]
        x.power_off()
    x.run(guest)
    assert x.seen == [False, True]


@pytest.mark.parametrize("irq", [1, 12])
def test_the_hosts_keyboard_and_mouse_are_the_guests(m, irq):
    x = Machine(m).build()

    def guest():
        x.seen = at_8259(x, irq), at_8259(x, 13 - irq)
        assert m.machine_interrupt(irq)
        x.seen += at_8259(x, irq), at_8259(x, 13 - irq)
        x.power_off()
    x.run(guest)
    assert x.seen == (False, False, True, False)


@pytest.mark.parametrize("serial", [True, False])
def test_the_hosts_com1_is_the_guests(m, serial):
    x = Machine(m)
    m.lib.machine_serial = serial
    x.build()
    assert x.notes() == (["COM1 receives"] if serial else [])
    assert m.machine_interrupt(4) == serial
    assert x.notes()[1:] == (["COM1"] if serial else [])
    assert x.machine.console.present == serial
    assert x.machine.console.uart == m.ffi.addressof(x.machine, "uart")


@pytest.mark.parametrize("function", ["host_irq_alloc", "host_irq_route"])
def test_a_host_without_these_interrupts_runs_a_guest(m, function):
    x = Machine(m)
    m.lib.machine_serial = True
    x.fail(function)
    x.build()
    warned = [t for level, t in m.log_lines() if level == m.LOG_WARN]
    assert [t for t in warned if "cannot be routed" in t] == [
        f"ISA interrupt {irq} cannot be routed" for irq in (1, 12, 4)]


# -- a start, and an end

def test_what_is_said_at_each_end(m):
    """What the guest has sent comes first; the counts are of one start."""
    x = Machine(m).build()
    m.lib.fakes_tsc = 1000

    def first():
        m.lib.fakes_tsc = 5000
        x.reset()
    x.run(first, x.power_off)
    said = [t.split(" from")[0] for _, t in m.log_lines()
            if t.startswith(("console", "guest: reset", "statistics"))]
    assert said == ["console flushed", "guest: reset (1)", "statistics",
                    "console flushed", "statistics"]
    assert [t for _, t in m.log_lines() if "statistics" in t] == [
        f"statistics from {at} of 1000000000 Hz" for at in (1000, 5000)]


@pytest.mark.parametrize("row, cursor", [(0, 0), (7, 7), (24, 24), (30, 24)])
def test_the_kernels_cursor_is_where_the_log_ended(m, row, cursor):
    x = Machine(m, igd_reset=m.RESET_NEVER).build()
    x.host.screen_row = row
    x.run(x.power_off)
    assert x.machine.loader.cursor_row == cursor


@pytest.mark.parametrize("fails, options, starts, how", [
    # It was asked for, or is needed as the display was reset.
    ("", {"rom_init": True, "igd_reset": 1},
     ["video BIOS", "kernel, with a screen"], "VM_POWER_OFF"),
    ("rom_init", {"rom_init": True, "igd_reset": 1}, ["video BIOS"],
     "VM_REFUSED"),
    # Where it cannot run, the guest has none; or has what is there.
    ("rom_init_check", {"igd_reset": 2}, ["kernel"], "VM_POWER_OFF"),
    ("", {"igd_reset": 0}, ["kernel"], "VM_POWER_OFF")])
def test_a_picture_at_the_first_start(m, fails, options, starts, how):
    x = Machine(m, **options).build()
    x.fail(fails)
    guests = [] if how == "VM_REFUSED" else [x.power_off]
    assert x.run(*guests) == getattr(m, how)
    assert [n for n in x.notes() if "reset" not in n] == starts


def test_a_later_start_goes_on_without_its_picture(m):
    x = Machine(m, igd_reset=m.RESET_REBOOT).build()

    def first():
        x.fail("rom_init")
        x.reset()
    assert x.run(first, x.power_off) == m.VM_POWER_OFF


@pytest.mark.parametrize("classes, disk", [
    ([0x300, 0x106], True), ([0x300], False), ([0x108, 0x300], True),
    ([0x200, 0x801], False)])
def test_a_boot_sector_is_on_a_disk_that_is_given(m, classes, disk):
    x = Machine(m)
    for n, cls in enumerate(classes):
        f = m.ffi.addressof(x.host.pci.functions[n])
        setattr(f, "class", cls)
        x.assign.functions[n].function = f
    x.assign.count = len(classes)
    assert x.plan() == 0
    assert x.machine.bios.has_disk == disk


# -- what the guest is told of addresses

def described(m, x):
    """Windows for devices, (base, size): below 4 GiB, and above."""
    cfg = m.new("struct guest_acpi_config *")
    m.machine_windows(x.machine, cfg)
    found = [(w.base, w.size) for w in cfg.windows[0:cfg.window_count]
             if not w.ports and w.base >= MIB]
    return [w for w in found if w[0] < 4 * GIB], \
        [w for w in found if w[0] >= 4 * GIB]


def test_windows_for_devices(m):
    """From the host's RAM to the I/O APIC; a BAR is in one, what is reserved
    and ECAM are in none. ACPI 6.4, 6.4.3.5: no two overlap."""
    x = Machine(m)
    regions = [(0x100000000, 0x1000, m.REGION_RAM, 1),
               (0xd0000000, MIB, m.REGION_DEVICE, 0),
               (0xd8000000, MIB, m.REGION_DEVICE, 2)]
    map_ = m.ffi.addressof(x.machine.vm, "map")
    for gpa, size, kind, e820 in regions[1:]:
        r = m.new("struct region *", {"gpa": gpa, "hpa": gpa, "size": size,
                                      "kind": kind, "e820": e820})
        assert m.region_add(map_, r, m.NULL) == 0
    assert m.machine_map(x.machine) == 0
    assert described(m, x) == ([
        (64 * MIB, 0xd8000000 - 64 * MIB),
        (0xd8100000, 0xe0000000 - 0xd8100000),
        (0xe0100000, 0xfec00000 - 0xe0100000)], [])


def test_more_pieces_than_windows(m):
    """Those that are left out are said."""
    x = Machine(m)
    map_ = m.ffi.addressof(x.machine.vm, "map")
    for n in range(m.GUEST_ACPI_WINDOWS):
        m.region_pin_hole(map_, 0x80000000 + n * 2 * MIB, MIB, b"hole")
    assert m.machine_map(x.machine) == 0
    below, _ = described(m, x)
    assert len(below) == m.GUEST_ACPI_WINDOWS - 3   # ports, and VGA
    assert below[0] == (64 * MIB, 0x80000000 - 64 * MIB)
    assert below[1:] == [(0x80100000 + n * 2 * MIB, MIB)
                         for n in range(len(below) - 1)]
    assert m.log_lines()[-1] == (
        m.LOG_WARN, "the guest's PCI windows are too many: "
        "0xe0100000-0xfebfffff is in none")


@pytest.mark.parametrize("bars, port, above", [
    ([], None, []),
    ([(8 * GIB, GIB)], None, [(8 * GIB, GIB)]),
    ([(8 * GIB, GIB), (16 * GIB, MIB)], None, [(8 * GIB, 8 * GIB + MIB)]),
    ([], (12 * GIB, GIB), [(12 * GIB, GIB)]),
    ([(16 * GIB, MIB)], (12 * GIB, GIB), [(12 * GIB, 4 * GIB + MIB)]),
    ([(8 * GIB, MIB)], (12 * GIB, GIB), [(8 * GIB, 5 * GIB)])])
def test_the_window_above_4_gib(m, bars, port, above):
    """All BARs there, and what a bridge lets through (PCI bridges 1.2,
    3.2.5.10); the guest may move a BAR within."""
    x = Machine(m)
    x.give(0, 2, *bars)
    if port:
        base, last = port[0], sum(port) - 1
        x.bridge(0, 1, 1, 1, wide=(
            base >> 16 & 0xfff0 | 1 | (last >> 16 & 0xfff0 | 1) << 16,
            base >> 32, last >> 32))
    assert m.machine_map(x.machine) == 0
    assert described(m, x)[1] == above


def test_the_devices_hole_is_uncached(m):
    """From 256 MiB on: SDM 11.11.2.3, ranges of a power of two."""
    x = Machine(m).build()
    x.seen = []

    def guest():
        x.seen = [(x.msr(0x200 + 2 * n), x.msr(0x201 + 2 * n))
                  for n in range(5)]
        x.power_off()
    x.run(guest)
    top = 1 << 39
    assert x.seen == [(n * 256 * MIB, top - n * 256 * MIB | 0x800)
                      for n in (1, 2, 4, 8)] + [(0, 0)]


@pytest.mark.parametrize("generation, at", [(5, 0xa0), (6, 0xb8), (9, 0xb8),
                                            (None, None)])
def test_the_bridges_registers_are_of_the_generation(m, generation, at):
    x = Machine(m)
    for offset in 0xa0, 0xb8:
        m.machine_config[0][offset] = offset
    if generation:
        x.assign.igd = {"function": x.display(), "generation": generation}
    x.build()

    def guest():
        for offset in 0xa0, 0xb8:
            x.out(0xcf8, 0x80000000 | offset, 4)
            if x.inp(0xcfc):
                x.seen.append(offset)
        x.power_off()
    x.seen = []
    x.run(guest)
    assert x.seen == ([at] if at else [])


def test_acpi_tables_lie_below_what_is_in_their_place(m):
    x = Machine(m)
    m.region_pin_hole(m.ffi.addressof(x.machine.vm, "map"), 60 * MIB, 4 * MIB,
                      b"reserved")
    assert m.machine_map(x.machine) == 0
    tables = x.region("ACPI tables")
    assert tables.gpa + tables.size == 60 * MIB
    assert x.machine.acpi_base == tables.gpa


def test_ram_may_end_at_4_gib(m):
    x = Machine(m, memory=[*MEMORY[:2], (3 * GIB, GIB)])
    assert m.machine_map(x.machine) == 0
    tables = x.region("ACPI tables")
    assert tables.gpa + tables.size == 4 * GIB


def test_acpi_tables_are_where_they_lie_with_identity(m):
    x = Machine(m, ram=m.RAM_IDENTITY)
    assert m.machine_map(x.machine) == 0
    tables = x.region("ACPI tables")
    assert tables.gpa == tables.hpa == x.machine.acpi_base
    assert tables.gpa + tables.size <= 64 * MIB


@pytest.mark.parametrize("memory, limit", [
    ([(0, 0x9f000), (MIB, 63 * MIB), (256 * MIB, MIB, 2)], 64),
    ([(0, 0x9f000), (MIB, 63 * MIB), (128 * MIB, MIB)], 129),
    ([(128 * MIB, MIB), (0, 0x9f000), (MIB, 63 * MIB)], 129),
    ([(0, 0x9f000), (MIB, 63 * MIB), (3 * GIB, 2 * GIB)], 64)])
def test_the_devices_hole_begins_where_ram_ends(m, memory, limit):
    """RAM alone counts, and only that below 4 GiB."""
    x = Machine(m, memory=memory)
    assert m.machine_map(x.machine) == 0
    assert described(m, x)[0][0][0] == limit * MIB


# -- firmware as the guest

IMAGE = 32 * MIB


class Firmware(Machine):
    """With a PC BIOS that does nothing."""

    def __init__(self, m, more=(), memory=((0, 0x9f000), (MIB, 255 * MIB),
                                           (4 * GIB, 32 * MIB)), **options):
        super().__init__(m, memory=memory, **options)
        m.ffi.memmove(m.phys_to_virt(IMAGE + 128 * KIB - 16), b"\xea", 1)
        words = [b"firmware", *more]
        self.keep = [m.new("char[]", w) for w in words]
        for n, string in enumerate(self.keep):
            self.host.boot.modules[n] = {
                "start": IMAGE, "size": 128 * KIB, "string": string}
        self.host.boot.module_count = len(words)

    def config(self, at):
        self.out(0xcf8, 1 << 31 | at, 4)
        return self.inp(0xcfc, 4)

    def pin(self, at, size):
        return self.m.region_pin_hole(self.m.ffi.addressof(
            self.machine.vm, "map"), at, size, b"hardware's")


def test_firmware_finds_a_machine_as_qemus_q35(m):
    """What SeaBIOS and OVMF look for, at each start; the ISA bridge stays the
    host's."""
    x = Firmware(m).build()
    seen = []

    def look():
        seen.append((x.config(0), x.config(0x2c), x.config(0xf840),
                     x.config(0xf844), fwcfg.read(x, 0, 4), x.msr(0x2ff),
                     [x.msr(n) for n in range(0x200, 0x210)]))
        assert b"\xea" == bytes(m.ffi.buffer(m.guest_ptr(m.ffi.addressof(
            x.machine.vm, "map"), 0xffff0, 1), 1))
        x.out(0x510, 0x19, 2)
        x.msr(0x2ff, 0xc06)
        x.msr(0x201, 0x800)
    x.run(lambda: (look(), x.reset()), lambda: (look(), x.power_off()))
    assert seen[0] == seen[1] == (
        0x29c08086, 0x11001af4, 0x601, 0x80, b"QEMU", 0, [0] * 16)


def test_firmware_finds_the_tables(m):
    """Made when it asks; ACPI 6.4, 5.2.5.3."""
    x = Firmware(m).build()
    files = {}

    def look():
        files.update({name: fwcfg.read(x, *where)
                      for name, where in fwcfg.directory(x).items()})
        x.power_off()
    x.run(look)
    rsdp, tables = files["etc/acpi/rsdp"], files["etc/acpi/tables"]
    assert rsdp[:8] == b"RSD PTR "
    xsdt = int.from_bytes(rsdp[24:32], "little")
    assert tables[xsdt:xsdt + 4] == b"XSDT"
    assert files["etc/sercon-port"] == (0x3f8).to_bytes(8, "little")


@pytest.mark.parametrize("named, uefi", [(1, False), (0, False), (1, True)])
def test_what_firmware_starts_first(m, named, uefi):
    """Where words name it; OVMF would delete what such a list leaves out."""
    x = Firmware(m)
    x.give(0, 9)
    x.assign.functions[0].function.__setattr__("class", 0x0108)
    x.assign.named = named
    assert x.plan() == 0, m.log_text()
    x.machine.firmware.uefi = uefi
    assert m.machine_build(x.machine) == 0, m.log_text()
    found = {}

    def look():
        found.update(fwcfg.directory(x))
        if "bootorder" in found:
            assert fwcfg.read(x, *found["bootorder"]) == b"/pci@i0cf8/usb@9\n"
        x.power_off()
    x.run(look)
    assert ("bootorder" in found) == bool(named and not uefi)


def test_firmwares_memory(m):
    """From 0 in one piece, 0xC0000 up too; its own image at the top."""
    x = Firmware(m)
    x.pin(200 * MIB, MIB)
    assert x.plan() == 0, m.log_text()
    rows = {m.string(r.name): (r.gpa, r.size, r.kind) for r in x.regions()}
    assert rows["BIOS"] == (0xc0000, 0x40000, m.REGION_RAM)
    assert rows["firmware"] == (4 * GIB - 128 * KIB, 128 * KIB, m.REGION_ROM)
    assert rows["ECAM"] == (0xb0000000, 256 * MIB, m.REGION_HOLE)
    assert "ACPI tables" not in rows
    ram = [(r.gpa, r.gpa + r.size) for r in x.regions() if r.e820 == 1]
    end = MIB
    for start, stop in ram:
        if MIB <= start < 4 * GIB:
            assert start == end
            end = stop
    assert 64 * MIB < end <= 200 * MIB
    assert x.machine.roots[0].last_bus == 255


@pytest.mark.parametrize("at, size, said", [
    (0xb2000000, MIB, "ECAM"), (0xa0000000, 512 * MIB, "ECAM"),
    (0xffff0000, 0x8000, "firmware"), (40 * MIB, MIB, "in one piece")])
def test_firmware_that_has_no_room(m, at, size, said):
    x = Firmware(m)
    x.pin(at, size)
    assert x.plan() < 0
    errors = [line for level, line in m.log_lines() if level == m.LOG_ERROR]
    assert len(errors) == 1 and said in errors[0], errors


@pytest.mark.parametrize("at, buses", [
    (0xb7f7f000, 127), (0xb2100000, 33), (0xbff00000, 255), (0xc0000000, 256)])
def test_what_is_pinned_behind_the_buses_that_firmware_numbers(m, at, buses):
    """A laptop's OpRegion lies there: fewer buses do as well."""
    x = Firmware(m)
    x.pin(at, 2 * PAGE)
    assert x.plan() == 0, m.log_text()
    ecam = x.region("ECAM")
    assert (ecam.gpa, ecam.size) == (0xb0000000, buses * MIB)
    assert x.machine.roots[0].last_bus == buses - 1


def test_firmware_and_a_kernel(m):
    x = Firmware(m, [b"kernel quiet"])
    assert x.plan() == -m.EINVAL
    line, = (line for level, line in m.log_lines() if level == m.LOG_ERROR)
    assert "leave one out" in line
    assert Firmware(m, [b"opt/x"]).plan() == 0
    assert "first word" not in m.log_text()


def test_firmware_finds_windows_where_its_bars_are(m):
    """And all between RAM and the top is bus 0's."""
    x = Firmware(m)
    x.give(0, 2, (0xd0000000, MIB), (0xc000, 64, True))
    x.give(0x80, 3, (0x90000000, MIB), (8 * GIB, GIB), (0xd000, 64, True))
    assert x.plan() == 0, m.log_text()
    moved = {(0, 0): 0xc8000000, (0, 1): 0x6000, (1, 0): 0xe0000000,
             (1, 1): 64 * GIB, (1, 2): 0x7000}
    for f in x.assign.functions[0:2]:
        for n in range(7):
            f.config.decoded[n] = 2**64 - 1
    for (f, n), where in moved.items():
        x.assign.functions[f].config.decoded[n] = where
    cfg = m.new("struct guest_acpi_config *")
    m.machine_windows(x.machine, cfg)
    windows = [(w.base, w.base + w.size, w.ports, w.root)
               for w in cfg.windows[0:cfg.window_count]]

    def owner(at, ports=False):
        return [root for start, end, p, root in windows
                if start <= at < end and p == ports]
    assert owner(0xc8000000) == owner(0xfe000000) == [0]
    assert owner(0xe0000000) == owner(64 * GIB) == [1]
    assert owner(0x6000, True) == [0] and owner(0x7000, True) == [1]
    assert owner(0x90000000) == owner(8 * GIB) == owner(2**38) == [0]
    assert owner(0xb0000000) == owner(2**39) == owner(4 * GIB) == []


@pytest.mark.parametrize("written, where", [
    (0xe0000001, 0xe0000000), (0xc0000001, 0xc0000000),
    (0xb0000001, 0xb0000000), (0xe0000000, 0xb0000000)])
def test_ecam_is_where_firmware_puts_it(m, written, where):
    """Q35's PCIEXBAR, by its bit 0, in each of its lives; MCFG and the root's
    windows follow."""
    x = Firmware(m).build()

    def look():
        x.out(0xcf8, 0x80000060, 4)
        x.out(0xcfc, written, 4)
        for at in 0xb0000000, 0xc0000000, 0xe0000000:
            assert x.mem(at) == (0x29c08086 if at == where else 0xffffffff)
        key, script = fwcfg.directory(x)["etc/table-loader"]
        fwcfg.read(x, key, script)
        tables = fwcfg.file(x, "etc/acpi/tables")
        at = tables.index(b"MCFG") + 44
        assert int.from_bytes(tables[at:at + 8], "little") == where
        cfg = m.new("struct guest_acpi_config *")
        m.machine_windows(x.machine, cfg)
        for w in cfg.windows[0:cfg.window_count]:
            assert w.ports or not (w.base < where + 256 * MIB and
                                   where < w.base + w.size)
    x.run(lambda: (look(), x.reset()), lambda: (look(), x.power_off()))


def test_ecam_where_the_hardware_is(m):
    x = Firmware(m)
    x.pin(0xe8000000, MIB)
    x.build()

    def guest():
        x.out(0xcf8, 0x80000060, 4)
        x.out(0xcfc, 0xe0000001, 4)
    assert x.run(guest) == m.VM_STOP
    assert "wants ECAM at 0xe0000000" in m.log_text()


def test_firmware_that_wants_smm_is_ended(m):
    """OVMF's PlatformQ35TsegMbytesInitialization(). Others may write there."""
    x = Firmware(m).build()

    def guest():
        x.out(0xcf8, 0x80000050, 4)
        x.out(0xcfc, 0xfffe, 2)
        x.out(0xcfc, 0xffffffff, 4)
        assert x.machine.vm.request == m.VM_RUN
        x.out(0xcfc, 0xffff, 2)
    assert x.run(guest) == m.VM_STOP
    assert "system management mode" in m.log_text()


# -- what the rooms are handed

@pytest.mark.parametrize("vtd, uefi", [(True, False), (False, True)])
def test_each_room_has_what_it_needs(m, vtd, uefi):
    x = Machine(m)
    x.host.has_vtd, x.host.boot.uefi = vtd, uefi
    m.machine_connect(x.machine, x.host)
    machine, host = x.machine, x.host

    def at(thing, name):
        return m.ffi.addressof(thing, name)
    assert machine.host == host and machine.loader.uefi == uefi
    all_ = machine.assign
    assert all_.vtd == (at(host, "vtd") if vtd else m.NULL)
    for name in "pci", "madt", "boot", "options":
        assert getattr(all_, name) == at(host, name), name
    for name in "vm", "vpci", "ioapic", "virq":
        assert getattr(all_, name) == at(machine, name), name
    assert all_.tsc_hz == host.tsc_hz
    map_ = m.ffi.addressof(machine.vm, "map")
    assert (machine.loader.map, machine.loader.rsdp) == (map_, m.BIOS_RSDP)
    assert machine.bios.loader == at(machine, "loader")
    assert machine.bios.bus == m.ffi.addressof(machine.vm, "bus")
    assert machine.rom_init.boot == at(host, "boot")
    assert machine.rom_init.options == at(host, "options")
    assert machine.vm.ept == at(machine, "ept")
    assert machine.vm.open_windows != m.NULL


def test_time_runs_as_the_hosts(m):
    x = Machine(m).build()
    vm = x.machine.vm
    assert vm.clock.tsc_hz == 10**9
    assert vm.vmx == m.ffi.addressof(x.host, "vmx")


@pytest.mark.parametrize("guest, names", [
    ("GUEST_KERNEL", {"ACPI tables", "BIOS"}), ("GUEST_BIOS", {"ACPI tables"})])
def test_what_stands_in_every_map(m, guest, names):
    """Both APICs trap; a boot sector has the firmware's own area."""
    x = Machine(m, guest=getattr(m, guest), ram=m.RAM_IDENTITY)
    assert m.machine_map(x.machine) == 0
    for name, at in ("IOAPIC", 0xfec00000), ("local APIC", 0xfee00000):
        hole = x.region(name)
        assert (hole.gpa, hole.size, hole.kind) == (at, PAGE, m.REGION_HOLE)
    assert {m.string(r.name) for r in x.regions()} & {
        "ACPI tables", "BIOS"} == names


def test_how_much_the_guest_is_given(m):
    x = Machine(m)
    x.host.options.memory = 20 * MIB
    assert m.machine_map(x.machine) == 0
    assert sum(r.size for r in x.regions() if r.e820 == m.E820_RAM) == \
        20 * MIB


def kept(m, ept_2m=1, code=0, unit=0, cpus=0):
    x = Machine(m)
    x.host.vmx.ept_2m, x.host.vmx.split_code = ept_2m, code
    x.host.has_vtd, x.host.vtd.unit_count = 1, unit
    x.host.madt.cpu_count = cpus
    assert m.machine_map(x.machine) == 0
    return m.phys_total(m.ffi.addressof(m.lib, "host_memory"))


@pytest.mark.parametrize("small, pages", [
    ({"unit": 1}, 1), ({"code": 1}, 1), ({"ept_2m": 0}, 1),
    ({"ept_2m": 0, "code": 1, "unit": 1}, 2)])
def test_what_of_the_memory_monocle_keeps(m, small, pages):
    """8 bytes for each 4 KiB where there is no larger page, of CPU or DMA,
    and something for each CPU."""
    least = kept(m)
    assert 3 * MIB < least < 5 * MIB
    assert kept(m, cpus=8) == least + MIB
    entries = sum(size for _, size in MEMORY) // 512 * pages
    assert abs(kept(m, **small) - least - entries) <= PAGE


@pytest.mark.parametrize("ecam", [0xe0000000, 0xfe000000])
def test_the_hosts_configuration_space_may_not_reach_over_the_apics(m, ecam):
    x = Machine(m)
    x.host.pci.ecam, x.host.pci.ecam_last_bus = ecam, 255
    x.host.pci.functions[1].bdf = 0x08
    m.machine_config[8][0x1a] = 31
    x.assign.ports[0].function = m.ffi.addressof(x.host.pci.functions[1])
    x.assign.port_count = 1
    assert m.machine_map(x.machine) == 0
    assert x.region("ECAM").gpa == 0xe0000000
