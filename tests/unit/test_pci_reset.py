# SPDX-License-Identifier: MIT
"""Resets of functions, and USB controllers taken over from firmware, on
devices that keep their manual's times, or do not. A tick is a microsecond."""
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from pcihost import (AF, AF_FLR, BAR, BUS, EXPRESS, FLR, MS, NONE, PM, POWER,
                     Device, Function, bdf)

FAKES = """
#include "kernel/phys.h"
#include "kernel/host_paging.h"
#include "arch/x86/cpu.h"
void *phys_to_virt(hpa_t hpa) { return (void *)hpa; }
volatile void *mmio_map(hpa_t hpa, u64 size)
{
	(void)size;
	return (volatile void *)hpa;
}
struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	(void)leaf; (void)subleaf;
	return (struct cpuid){0};
}
"""
NAMES = {FLR: "FLR", AF_FLR: "AF", POWER: "PM", BUS: "bus"}


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "pci_reset", ["drivers/pci/config.c", "drivers/pci/scan.c",
                      "drivers/pci/groups.c", "drivers/pci/reset.c", "drivers/pci/handoff.c",
                      "kernel/time.c"],
        headers=["drivers/pci/pci.h", "kernel/log.h"], fakes=FAKES)


class Bridge(Function):
    """Holds its bus in reset while bit 6 of its control is set."""

    def __init__(self, m, machine, bus):
        super().__init__(cls=0x060400, header=1, secondary=bus)
        self.m, self.machine, self.bus, self.since = m, machine, bus, None
        self.held = []
        self.writable[0x3e] = 0xff
        self.put(0x3e, 1, 3)

    def write(self, at, size, value):
        super().write(at, size, value)
        if at != 0x3e:
            return
        if value & 0x40:
            self.since = self.m.tsc
        elif self.since is not None:
            self.held.append(self.m.tsc - self.since)
            for where, f in self.machine.functions.items():
                if where >> 8 == self.bus:
                    f.reset(BUS)


class Machine:
    """Mechanism #1, and registers at BAR: {offset: dword}."""

    def __init__(self, m):
        self.m, self.functions, self.address = m, {}, 0
        self.mmio, self.locked, self.order = {}, set(), []
        self.live = {}      # registers that are asked: {offset: function}
        m.lib.fakes_relax_ticks = MS
        m.on_read(self.on_read)
        m.on_write(self.on_write)
        self.host = m.new("struct pci_host *")

    def add(self, where, function):
        self.functions[where] = function
        self.m.pci_scan(self.host)
        for f in self.host.functions[0:self.host.count]:
            # As pci_size_bars() finds it, which may not be asked again.
            f.bars[0].base, f.bars[0].size = BAR, 2 << 20
        return function

    def on_read(self, kind, addr, size):
        if kind == "read":
            assert size == 4
            live = self.live.get(addr - BAR)
            return live() if live else self.mmio.get(addr - BAR, 0)
        if kind == "in" and not 0xcf8 <= addr <= 0xcff:
            return None
        f = self.functions.get(self.address >> 8 & 0xffff)
        at = (self.address & 0xfc) + addr - 0xcfc
        return f.read(at, size) if f else 2 ** (8 * size) - 1

    def on_write(self, kind, addr, size, value):
        if kind == "write":
            self.order.append((addr - BAR, value))
            if addr - BAR not in self.locked:
                self.mmio[addr - BAR] = value
        elif addr == 0xcf8:
            self.address = value
        elif 0xcfc <= addr <= 0xcff:
            f = self.functions.get(self.address >> 8 & 0xffff)
            if f:
                f.write((self.address & 0xfc) + addr - 0xcfc, size, value)
        else:
            self.order.append((addr, value))

    def at(self, where):
        return self.m.pci_find(self.host, where)

    def keep(self, where):
        f = self.at(where)
        saved = self.m.new("struct pci_saved *")
        self.m.pci_save(self.host, f, saved)
        f.saved = saved
        return saved

    def reset(self, where, bus=False):
        return self.m.pci_reset_function(self.host, self.at(where), bus,
                                         1_000_000)


WHERE = bdf(0, 5)


@pytest.mark.parametrize("vendor, device, flr, af, method", [
    (0x8086, 0x1502, 1, 1, POWER), (0x8086, 0x1503, 0, 1, POWER),
    (0x8086, 0x1501, 1, 1, FLR), (0x14c3, 0x0616, 1, 0, POWER)])
def test_a_reset_that_hangs_is_not_used(m, vendor, device, flr, af, method):
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, flr, af, 1))
    f.put(0, 2, vendor)
    f.put(2, 2, device)
    assert m.pci_reset_method(machine.host, WHERE) == method


@pytest.mark.parametrize("vendor, cls, behind, method", [
    (0x1002, 0x030000, True, "bus"), (0x1002, 0x030000, False, "D3hot"),
    (0x1002, 0x040300, True, "D3hot"), (0x10de, 0x030000, True, "D3hot")])
def test_a_reset_that_does_nothing_is_not_used(m, vendor, cls, behind, method):
    """AMD's displays, where their bus can be reset."""
    machine = Machine(m)
    if behind:
        machine.add(bdf(0, 1), Bridge(m, machine, 1))
    f = machine.add(bdf(behind, 5), Device(m, 0, 0, 1))
    f.put(0, 2, vendor)
    f.put(0xa, 2, cls >> 8)
    assert m.ffi.string(m.pci_reset_name(m.pci_reset_method(
        machine.host, bdf(behind, 5)))).decode() == method


@pytest.mark.parametrize("device, method", [
    (0x5912, NONE), (0x9bc8, NONE), (0x9bc5, NONE), (0x9b41, NONE),
    (0x5916, FLR), (0x3e92, FLR), (0x4680, FLR)])
def test_graphics_that_lock_the_machine_up(m, device, method):
    """Nor is there another reset, which nobody has tried."""
    machine = Machine(m)
    machine.add(WHERE, Device(m, 1, 1, 1, vendor=0x8086, device=device,
                              cls=0x030000))
    assert m.pci_reset_method(machine.host, WHERE) == method


@pytest.mark.parametrize("flr, af, power, method", [
    (1, 1, 1, FLR), (0, 1, 1, AF_FLR), (0, 0, 1, POWER), (0, 0, 0, NONE)])
def test_best_method_first(m, flr, af, power, method):
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, flr, af, power))
    before = bytes(f.config)
    m.lib.fakes_line_count = 0
    assert m.pci_reset_method(machine.host, WHERE) == method
    err = machine.reset(WHERE)
    assert f.resets == [method] * (method != NONE)
    assert (err == 0) == (method != NONE)
    assert bytes(f.config) == before and m.log_text() == ""


@pytest.mark.parametrize("method", [FLR, AF_FLR, POWER, BUS, NONE])
def test_what_was_kept_comes_back(m, method):
    """Whatever a guest has made of it, of all on a bus that is reset; and
    where nothing resets the function, too."""
    machine = Machine(m)
    machine.add(bdf(0, 0x1c), Bridge(m, machine, 1))
    bus = method == BUS
    found = [machine.add(bdf(bus, 5, n), Device(
        m, method == FLR, method == AF_FLR, method == POWER, multi=bus))
        for n in range(1 + bus)]
    kept = [machine.keep(bdf(bus, 5, n)) for n in range(len(found))]
    before = [bytes(f.config) for f in found]
    for _ in range(2):
        for f in found:
            f.bar(0, 0xc0000000, 0xfffff000)
            f.put(4, 2, 0x400)
            f.put(0x3c, 1, 0)
        machine.reset(bdf(bus, 5), bus)
        assert [bytes(f.config) for f in found] == before
    assert [f.resets for f in found] == [
        [method] * 2 * (method != NONE)] * len(kept)


def test_power_waits_on_both_ways(m):
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, power=True))
    start = m.tsc
    assert machine.reset(WHERE) == 0
    assert f.resets == [POWER] and m.tsc - start >= 110 * MS


def test_a_reset_that_keeps_the_state_is_none(m):
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, power=True))
    f.config[0x74] = 8          # No_Soft_Reset
    assert m.pci_reset_method(machine.host, WHERE) == NONE


@pytest.mark.parametrize("state", [1, 2, 3])
@pytest.mark.parametrize("keeps", [0, 8])
def test_a_function_that_firmware_left_asleep(m, state, keeps):
    """It is awake then, its BAR in place, and no reset sends it back."""
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, power=not keeps, flr=True, away=5 * MS))
    f.capabilities((0x40, EXPRESS, 0x70), (0x70, PM, 0))
    f.writable[0x74] = 3
    f.config[0x74] = keeps
    f.initial[0x40:0x80] = f.config[0x40:0x80]
    before = bytes(f.config)
    f.config[0x74] |= state
    m.lib.fakes_line_count = 0
    m.pci_wake(machine.host, machine.at(WHERE), 1_000_000)
    assert bytes(f.config) == before
    assert f.resets == [POWER] * (state == 3 and not keeps)
    assert "00:05.0: firmware left it asleep" in m.log_text()
    assert machine.reset(WHERE) == 0 and bytes(f.config) == before
    start, m.lib.fakes_line_count = m.tsc, 0
    m.pci_wake(machine.host, machine.at(WHERE), 1_000_000)
    assert m.tsc == start and m.log_text() == ""


@pytest.mark.parametrize("fields", [{"flr": True}, {"af": True}])
def test_waits_for_what_is_pending(m, fields):
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, pending=60 * MS, **fields))
    assert machine.reset(WHERE) == 0
    assert len(f.resets) == 1 and not f.early


@pytest.mark.parametrize("fields", [{"flr": True}, {"af": True}])
def test_pending_for_ever(m, fields):
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, pending=1 << 60, **fields))
    m.lib.fakes_line_count = 0
    assert machine.reset(WHERE) == 0 and len(f.early) == 1
    (level, line), = m.log_lines()
    assert level == m.LOG_WARN
    assert line == "00:05.0: transactions are pending at its reset"


@pytest.mark.parametrize("away, back", [
    (99 * MS, True), (500 * MS, True), (1050 * MS, True), (1300 * MS, False),
    (1 << 60, False)])
def test_given_up_after_the_manuals_time(m, away, back):
    machine = Machine(m)
    machine.add(WHERE, Device(m, flr=True, away=away))
    m.lib.fakes_line_count = 0
    start = m.tsc
    assert (machine.reset(WHERE) == 0) == back
    assert 100 * MS <= m.tsc - start <= 1250 * MS
    assert m.log_text() == ("" if back else
                            "00:05.0 does not come back from its reset")


def test_configuration_request_retry_status(m):
    """A vendor of 0001: not yet (PCIe 2.3.1)."""
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, flr=True, away=0))
    f.initial[0:2] = b"\x01\x00"
    assert machine.reset(WHERE) != 0


def test_bus_reset(m):
    machine = Machine(m)
    bridge = machine.add(bdf(0, 0x1c), Bridge(m, machine, 1))
    behind = [machine.add(bdf(1, 0, n), Device(m, multi=True))
              for n in range(3)]
    other = machine.add(bdf(0, 5), Device(m))
    before = [bytes(f.config) for f in behind]
    assert m.pci_reset_method(machine.host, bdf(1, 0)) == BUS
    assert machine.reset(bdf(1, 0)) < 0         # not all of it is the guest's
    assert machine.reset(bdf(1, 0), True) == 0
    assert [f.resets for f in behind] == [[BUS]] * 3 and not other.resets
    assert [bytes(f.config) for f in behind] == before
    assert bridge.config[0x3e] == 3 and bridge.held[0] >= 1 * MS
    assert machine.reset(bdf(0, 5), True) < 0   # the root bus has no bridge


def test_resized_bars_keep_their_size(m):
    """PCIe 7.8.6.3: a reset takes the size back to the device's own."""
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, flr=True))
    m.on_read(lambda kind, addr, size: f.read(addr & 0xfff, size)
              if kind == "read" else machine.on_read(kind, addr, size))
    m.on_write(lambda kind, addr, size, value:
               f.write(addr & 0xfff, size, value) if kind == "write"
               else machine.on_write(kind, addr, size, value))
    f.put(0x100, 4, 0x15)
    for at, control in ((0x108, 2 << 5 | 0x200), (0x110, 0x302)):
        f.put(at, 4, control)
        f.writable[at + 1] = 0x3f
    f.writable[0x10c] = 0xff
    f.initial[0x100:0x200] = f.config[0x100:0x200]
    for at, bits in ((0x109, 14), (0x111, 8)):
        f.put(at, 1, bits)
    before = bytes(f.config)
    machine.host.ecam, machine.host.ecam_last_bus = 0x80000000, 0
    try:
        assert machine.reset(WHERE) == 0
    finally:
        machine.host.ecam = 0
    assert f.resets == [FLR] and bytes(f.config) == before


def test_bus_reset_is_the_last_resort(m):
    machine = Machine(m)
    machine.add(bdf(0, 0x1c), Bridge(m, machine, 1))
    f = machine.add(bdf(1, 0), Device(m, flr=True))
    assert machine.reset(bdf(1, 0), True) == 0
    assert f.resets == [FLR]


@pytest.mark.parametrize("fields, method", [({"flr": True}, FLR),
                                            ({"af": True}, AF_FLR)])
def test_in_two_parts(m, fields, method):
    """Nothing is waited for, and what was cleared comes back: the guest asks
    while another of its CPUs may wait for the devices' lock."""
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, away=500 * MS, pending=1 << 60, **fields))
    before, start = bytes(f.config), m.tsc
    saved = m.new("struct pci_saved *")
    m.pci_save(machine.host, machine.at(WHERE), saved)
    m.pci_reset_begin(machine.host, machine.at(WHERE), method)
    assert f.resets == [method] and m.tsc - start < MS
    assert m.pci_reset_finish(machine.host, saved) == -m.EBUSY
    m.tsc += 500 * MS
    assert m.pci_reset_finish(machine.host, saved) == 0
    assert bytes(f.config) == before


# --- Registers of graphics -----------------------------------------------

REGISTERS = {0x45008: 1, 0xa090: 2, 0xa094: 3, 0xd48: 4, 0xdc8: 5,
             0x1082c0: 6}


WAKE, ACK = 0xa188, 0x130044


class Graphics(Device):
    """Registers below 0x40000 are 0, and stay, while it is asleep; it answers
    `late` ms behind the request (masked writes: bit 0, and bit 16 for it)."""

    def __init__(self, m, machine, late=3, **fields):
        super().__init__(m, flr=True, cls=0x030000, **fields)
        self.machine, self.late, self.awake = machine, late, None
        machine.mmio.update(REGISTERS)
        read, write = machine.on_read, machine.on_write

        def on_read(kind, addr, size):
            at = addr - BAR
            if kind == "read" and at == ACK:
                return int(self.is_awake())
            if kind == "read" and at < 0x40000 and not self.is_awake():
                return 0
            return read(kind, addr, size)

        def on_write(kind, addr, size, value):
            at = addr - BAR
            if kind == "write" and at == WAKE:
                assert value >> 16 == 1
                self.awake = self.m.tsc if value & 1 else None
            elif kind == "write" and at < 0x40000 and not self.is_awake():
                machine.order.append("lost")
            else:
                write(kind, addr, size, value)
        m.on_read(on_read)
        m.on_write(on_write)

    def is_awake(self):
        return self.awake is not None and self.late is not None and \
            self.m.tsc - self.awake >= self.late * MS

    def reset(self, how):
        super().reset(how)
        for at in REGISTERS:
            if at not in self.machine.locked:
                self.machine.mmio[at] = 0
        self.machine.order.append("reset")


def graphics(m, **fields):
    machine = Machine(m)
    f = machine.add(bdf(0, 2), Graphics(m, machine, **fields))
    f.put(4, 2, 2)
    m.lib.fakes_line_count = 0
    m.pci_save_graphics(machine.host, machine.at(bdf(0, 2)), WAKE, ACK,
                        1_000_000)
    assert not f.is_awake() and machine.order == []
    return machine, f


def test_registers_of_graphics_come_back(m):
    """As firmware had them, whatever a guest has made of them; the RC6
    context's base before RC6 goes on."""
    machine, _ = graphics(m)
    machine.locked = {0xa094}           # keeps its value
    for _ in range(2):
        assert machine.reset(bdf(0, 2)) == 0
        assert {at: machine.mmio[at] for at in REGISTERS} == REGISTERS
        assert machine.order[0] == "reset"
        assert dict(machine.order[1:]) == {
            at: value for at, value in REGISTERS.items() if at != 0xa094}
        order = [at for at, _ in machine.order[1:]]
        assert max(map(order.index, (0xd48, 0xdc8))) < order.index(0xa090)
        machine.mmio[0xa090] = machine.mmio[0xd48] = 77
        machine.order.clear()


def test_graphics_that_do_not_wake_lose_them(m):
    """No zeros in the place of what firmware had; bounded, and said."""
    start = m.tsc
    machine, _ = graphics(m, late=None)
    assert m.tsc - start < 200 * MS
    assert m.log_text().startswith("00:02.0: its registers do not wake")
    assert machine.reset(bdf(0, 2)) == 0 and machine.order == ["reset"]


def test_a_register_that_does_not_come_back_is_said(m):
    machine, f = graphics(m)
    before, f.reset = f.reset, lambda how: (before(how),
                                            machine.locked.add(0xa090))
    assert machine.reset(bdf(0, 2)) == 0
    assert m.log_text() == ("00:02.0: after its reset RC6 control (0xa090) "
                            "is 0x0, was 0x2")


def test_registers_of_others_are_left_alone(m):
    machine, _ = graphics(m)
    machine.add(WHERE, Device(m, flr=True, cls=0x030000))
    assert machine.reset(WHERE) == 0 and machine.order == []


def test_registers_that_do_not_answer_are_not_asked(m):
    """Memory decode is off: at that address may be another's."""
    machine = Machine(m)
    f = machine.add(bdf(0, 2), Graphics(m, machine))
    f.put(4, 2, 5)
    m.clear_events()
    assert machine.reset(bdf(0, 2)) == 0
    assert f.resets == [FLR] and machine.order == ["reset"]
    assert not m.events("read", "write")


# --- Sleep (PCI PM 1.2, 3.2.4) -------------------------------------------

@pytest.mark.parametrize("power", [True, False])
def test_a_function_is_put_to_sleep(m, power):
    """In D3hot; what else the register has stays as it is."""
    machine = Machine(m)
    f = machine.add(WHERE, Device(m, power=power))
    f.put(0x74, 2, 0x0108)
    f.writable[0x75] = 0x1f
    before = bytes(f.config)
    m.pci_sleep(machine.host, WHERE)
    assert f.read(0x74, 2) == (0x010b if power else 0x0108)
    f.put(0x74, 2, 0x0108)
    assert bytes(f.config) == before


# --- Mobile Ivy Bridge: Linux's drivers/pci/quirks.c, reset_ivb_igd() ---------

PANEL_STATUS, PANEL_CONTROL = 0xc7200, 0xc7204
STEPS = [(0x45010, 2), (0xc2004, 5), (PANEL_CONTROL, 0xabcd0000)]


def ivb(m, off_after):
    """The machine; its panel is off so long after it was told, or never."""
    machine = Machine(m)
    machine.add(bdf(0, 2), Device(m, flr=True, vendor=0x8086, device=0x0166,
                                  cls=0x030000))
    machine.mmio = {PANEL_CONTROL: 0xabcd0001, PANEL_STATUS: 1 << 31}
    read = machine.on_read

    def on_read(kind, addr, size):
        told = machine.mmio.get(PANEL_CONTROL) == 0xabcd0000
        if kind == "read" and addr == BAR + PANEL_STATUS and told and \
                off_after is not None:
            machine.since = getattr(machine, "since", m.tsc)
            if m.tsc - machine.since >= off_after * MS:
                return 0x08000000
        return read(kind, addr, size)
    m.on_read(on_read)
    return machine


def test_every_method_has_a_name(m):
    """The last one, too, which `list` and the log print."""
    names = [m.ffi.string(m.pci_reset_name(method)).decode()
             for method in range(NONE, m.PCI_RESET_IVB + 1)]
    assert len(set(names)) == len(names) and "" not in names
    machine = ivb(m, 0)
    assert m.pci_reset_method(machine.host, bdf(0, 2)) == m.PCI_RESET_IVB


@pytest.mark.parametrize("off_after", [0, 35, 9000])
def test_ivy_bridge_has_its_own_reset(m, off_after):
    """No FLR; the power state is written when the panel is off."""
    machine = ivb(m, off_after)
    assert machine.reset(bdf(0, 2)) == 0
    assert machine.order == [*STEPS, (0xd0100, 2)]
    assert machine.functions[bdf(0, 2)].resets == []


def test_a_panel_that_stays_on_is_given_up(m):
    machine = ivb(m, None)
    before = m.tsc
    assert machine.reset(bdf(0, 2)) == 0
    assert machine.order == STEPS
    assert 10_000 * MS <= m.tsc - before <= 12_000 * MS
    assert "00:02.0: its panel stays on at its reset" in m.log_text()


# --- The hand-over of USB controllers ------------------------------------

BIOS, OS = 1 << 16, 1 << 24


class Usb(Function):
    """Firmware that lets go `after` ms behind the request, or never."""

    def __init__(self, m, interface, after=None, owned=True, chain=None):
        super().__init__(cls=0x0c0300 | interface)
        self.m, self.after, self.asked = m, after, None
        self.owned, self.forced = owned, False

    def semaphore(self):
        if self.asked is not None and self.after is not None and \
                self.m.tsc - self.asked >= self.after * MS:
            self.owned = False
        return BIOS * self.owned | OS * (self.asked is not None)

    def take(self, value):
        if value & OS and self.asked is None:
            self.asked = self.m.tsc
        if not value & BIOS:
            self.forced, self.owned = self.owned, False


class Xhci(Usb):
    CAP = 0x500

    def __init__(self, m, machine, chain=None, **fields):
        super().__init__(m, 0x30, **fields)
        self.machine = machine
        machine.mmio = {0: 0x20, 0x10: self.CAP // 4 << 16, 0x20: 0x40d | 2,
                        **(chain or {self.CAP: 0x0102, self.CAP + 4: 1})}
        at = self.at = self.CAP + 4 if not chain else max(chain)
        machine.mmio[at + 4] = 0x1ffff
        machine.on_mmio = self

    def attach(self):
        machine, read, write = (self.machine, self.machine.on_read,
                                self.machine.on_write)

        def on_read(kind, addr, size):
            if kind == "read" and addr == BAR + self.at:
                return 0x0001 | self.semaphore()
            if kind == "read" and addr == BAR + 0x24:
                return int(not machine.mmio[0x20] & 1)
            return read(kind, addr, size)

        def on_write(kind, addr, size, value):
            if kind == "write" and addr == BAR + self.at:
                self.take(value)
            write(kind, addr, size, value)
        self.m.on_read(on_read)
        self.m.on_write(on_write)
        return self


def xhci(m, **fields):
    machine = Machine(m)
    f = machine.add(bdf(0, 0x14), Xhci(m, machine, **fields))
    m.lib.fakes_line_count = 0
    return machine, f.attach()


def take_over(m, machine, where=bdf(0, 0x14)):
    start = m.tsc
    m.pci_take_over(machine.host, machine.at(where), 1_000_000)
    return m.tsc - start


def test_xhci_is_handed_over(m):
    machine, f = xhci(m, after=30)
    assert 30 * MS <= take_over(m, machine) < 100 * MS
    assert not f.forced and not f.owned
    # SMIs off, their events cleared, the other bits as they were.
    assert machine.mmio[f.at + 4] == 0x1ffff & ~0xe011 | 7 << 29
    assert machine.mmio[0x20] == 2      # stopped, no interrupts
    assert m.log_text() == \
        "00:14.0: firmware hands the USB controller over"


def test_xhci_is_taken_by_force(m):
    machine, f = xhci(m, after=None)
    assert 1000 * MS <= take_over(m, machine) < 1100 * MS
    assert f.forced and machine.mmio[f.at + 4] & 0xe011 == 0
    assert m.log_text() == ("00:14.0: firmware keeps the USB controller; it "
                            "is taken by force")


def test_xhci_that_firmware_does_not_use(m):
    machine, f = xhci(m, owned=False)
    assert take_over(m, machine) < 10 * MS
    assert f.asked is None and m.log_text() == ""
    assert machine.mmio[0x20] == 2


@pytest.mark.parametrize("chain", [
    {0x500: 0xff02, 0x8fc: 0xff02},             # out of what is read here
    {0x500: 0x0002},                            # an end without it
    {0x500: 0xffffffff, 0x8fc: 0xffffffff},
])
def test_xhci_chain_without_legacy_support(m, chain):
    machine, f = xhci(m, chain=chain)
    f.at = 0x7ffffff
    f.attach()
    assert take_over(m, machine) < 100 * MS
    assert f.asked is None


@settings(max_examples=40)
@given(heads=st.dictionaries(st.integers(0, 0x7ffff).map(lambda n: 4 * n),
                             st.integers(0, 2**32 - 1), max_size=20),
       first=st.integers(0, 0xffff), size=st.integers(0, 1 << 21))
def test_any_chain_ends_within_the_bar(m, heads, first, size):
    machine, _ = xhci(m, owned=False)
    machine.mmio.update(heads)
    machine.mmio[0x10] = first << 16
    f = machine.at(bdf(0, 0x14))
    f.bars[0].size = size
    m.clear_events()
    take_over(m, machine)
    assert all(BAR <= e.addr <= BAR + size - 4 for e in
               m.events("read", "write"))


def test_a_bar_without_an_address_is_not_touched(m):
    """What lies at 0 is memory; the other BARs may have switched decode on."""
    machine, _ = xhci(m)
    graphics = machine.add(bdf(0, 2), Graphics(m, machine))
    machine.at(bdf(0, 2)).bars[0].base = 0
    machine.at(bdf(0, 0x14)).bars[0].base = 0
    graphics.bar(0, 0, 0xfffff000)
    m.clear_events()
    take_over(m, machine)
    assert machine.reset(bdf(0, 2)) == 0
    assert m.events("read", "write") == []


def test_xhci_without_decode_is_left_alone(m):
    machine, f = xhci(m)
    f.put(4, 2, 0)
    take_over(m, machine)
    assert f.asked is None and machine.order == []


class Ehci(Usb):
    def __init__(self, m, machine, first=0x68, **fields):
        super().__init__(m, 0x20, **fields)
        machine.mmio = {0: 0x20, 8: first << 8, 0x20: 0x30001, 0x24: 0x1000,
                        0x28: 0x3f}
        self.put(0x60, 4, 0x6000)       # unknown, and a loop to itself
        self.put(0x6c, 4, 0xe03f)
        self.writable[0x6c:0x70] = b"\xff" * 4

    def read(self, at, size):
        if at == 0x68:
            return 1 | self.semaphore()
        return super().read(at, size)

    def write(self, at, size, value):
        if at == 0x68:
            self.take(value)
        super().write(at, size, value)


@pytest.mark.parametrize("after", [10, None])
def test_ehci(m, after):
    machine = Machine(m)
    f = machine.add(WHERE, Ehci(m, machine, after=after))
    m.lib.fakes_line_count = 0
    take_over(m, machine, WHERE)
    assert f.forced == (after is None) and not f.owned
    assert f.read(0x6c, 4) == 0
    assert machine.mmio[0x20] == 0x30000 and machine.mmio[0x28] == 0
    assert ("by force" in m.log_text()) == (after is None)


@pytest.mark.parametrize("first", [0x60, 0x3c, 0x6a, 0, 0xfc])
def test_ehci_without_the_capability(m, first):
    machine = Machine(m)
    f = machine.add(WHERE, Ehci(m, machine, first=first))
    assert take_over(m, machine, WHERE) < 100 * MS
    assert f.asked is None and machine.mmio[0x20] == 0x30000


def test_uhci(m):
    machine = Machine(m)
    f = machine.add(WHERE, Function(cls=0x0c0300))
    f.put(0xc0, 2, 0x003f)
    f.writable[0xc0:0xc2] = b"\xff\xff"
    found = machine.at(WHERE)
    found.bars[4].base, found.bars[4].size, found.bars[4].io = 0xe000, 32, 1
    take_over(m, machine, WHERE)
    assert f.read(0xc0, 2) == 0xaf00
    assert machine.order == [(0xe004, 0), (0xe000, 0)]


@pytest.mark.parametrize("after", [10, None])
def test_ohci(m, after):
    machine = Machine(m)
    f = machine.add(WHERE, Function(cls=0x0c0310))
    f.put(4, 2, 6)
    machine.mmio = {0: 0x110, 4: 0x3bf, 8: 0, 0x14: 0}
    asked = []

    def control():
        if machine.mmio[8] == 8 and not asked:
            asked.append(m.tsc)
        if after and asked and m.tsc >= asked[0] + after * MS:
            machine.mmio[4] &= ~0x100
        return machine.mmio[4]
    machine.live[4] = control
    took = take_over(m, machine, WHERE)
    assert asked and (took >= 1000 * MS) == (after is None)
    assert ("by force" in m.log_text()) == (after is None)
    # No interrupts, and the state in which it is quiet; RWC stays.
    assert machine.mmio[0x14] == 0xffffffff and machine.mmio[4] == 0x200
    assert machine.at(WHERE).taken_over


@pytest.mark.parametrize("cls", [0x0c0340, 0x0c03fe, 0x0c0500, 0x020030])
def test_others_are_left_alone(m, cls):
    machine = Machine(m)
    machine.add(WHERE, Function(cls=cls))
    m.clear_events()
    take_over(m, machine, WHERE)
    assert machine.order == [] and not m.events("write")
    assert not machine.at(WHERE).taken_over


# --- Ports that xHCI and EHCI share: Linux, usb_enable_intel_xhci_ports() ------

@pytest.mark.parametrize("device, routed", [
    (0x1e31, True), (0x8c31, True), (0x9c31, True), (0x8cb1, True),
    (0x9cb1, True), (0x8d31, True), (0xa12f, False), (0x9d2f, False)])
def test_ports_of_the_7_to_9_series(m, device, routed):
    """USB 3 first; as many as the masks allow; not where there is no mask."""
    machine, f = Machine(m), Function(device=device, vendor=0x8086,
                                      cls=0x0c0330)
    machine.add(bdf(0, 0x14), f)
    f.writable[0xd0:0xe0] = b"\xff" * 16
    f.put(0xd4, 4, 0x7fff)
    f.put(0xdc, 4, 0xf)
    written, write = [], f.write
    f.write = lambda at, size, value: (written.append((at, value)),
                                       write(at, size, value))
    m.pci_route_usb_ports(machine.host, machine.at(bdf(0, 0x14)))
    assert written == ([(0xd8, 0xf), (0xd0, 0x7fff)] if routed else [])
    f.put(0xd4, 4, 0)
    f.put(0xdc, 4, 0)
    written.clear()
    m.pci_route_usb_ports(machine.host, machine.at(bdf(0, 0x14)))
    assert written == []
