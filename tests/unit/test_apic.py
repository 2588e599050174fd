# SPDX-License-Identifier: MIT
"""The host's interrupt controllers: the local APIC in both of its modes,
where a line of an IOAPIC goes, and who serves a vector (SDM chapter 11,
82093AA, ACPI 5.2.12)."""

import pytest

import harness
import vmxcpu

FAKES = """
#include "tests/unit/vmx_fakes.c"
#include "kernel/host_paging.h"
#include "kernel/percpu.h"
#include "kernel/traps.h"

u64 unmapped;

volatile void *mmio_map(hpa_t hpa, u64 size)
{
	return hpa == unmapped || size < 0x14 ? NULL
					      : (volatile void *)hpa;
}

static struct percpu cpus[3]; /* but there is none of index 1 */
static struct host_irq irqs[3][256];

struct percpu *percpu_at(u32 index)
{
	return index == 0 || index == 2 ? &cpus[index] : NULL;
}

void be(u32 index)
{
	for (unsigned i = 0; i < 3; i++) {
		cpus[i].self = &cpus[i];
		cpus[i].apic_id = 0x10 * i;
		cpus[i].irqs = irqs[i];
	}
	fake_gs_base(percpu_at(index));
}
"""
BASE, BSP, ENABLE, X2APIC = 0xfee00000, 1 << 8, 1 << 11, 1 << 10
ID, TPR, EOI, SVR, ICR, ICR_HIGH = 0x20, 0x80, 0xb0, 0xf0, 0x300, 0x310
LVTS = (0x320, 0x350, 0x360, 0x370)
MASKED, PENDING = 1 << 16, 1 << 12
LEVEL, LOW = 1 << 15, 1 << 13


@pytest.fixture(scope="module")
def m():
    return harness.build(
        "apic", ["arch/x86/apic.c", "kernel/host_irq.c", "kernel/vectors.c",
                 "kernel/kick.c"],
        headers=["arch/x86/apic.h", "kernel/host_irq.h", "kernel/traps.h",
                 "kernel/percpu.h",
                 *vmxcpu.HEADERS],
        fakes=FAKES, cdef="""extern u64 unmapped;
                           void be(u32 index);
                           struct percpu *percpu_at(u32 index);""")


class Apic:
    """The xAPIC page at BASE, and IOAPICs."""

    def __init__(self, m, x2apic=False, base=BASE | ENABLE | BSP, ident=5,
                 busy=0):
        self.m, self.cpu = m, vmxcpu.Cpu(m)
        self.regs, self.busy = {ID: ident << 24}, busy
        self.written, self.ioapics = [], {}
        self.cpu.set_msr(m.MSR_APIC_BASE, base)
        for at in (ID, TPR, EOI, SVR, ICR, *LVTS):
            self.cpu.set_msr(0x800 + at // 16, 0x12345 if at == ID else 0)
        m.lib.unmapped = 0
        m.be(0)
        m.on_read(self.read)
        m.on_write(self.write)
        m.local_apic_init(m.ffi.cast("void *", BASE), x2apic, 0xff)

    def read(self, kind, addr, size):
        if kind != "read":
            return None
        assert size == 4
        if addr - BASE in range(0x1000):
            at = addr - BASE
            if at == ICR and self.busy:
                self.busy -= 1
                return PENDING
            return self.regs.get(at, 0)
        return self.ioapics[addr & ~0xfff].read(addr & 0xfff)

    def write(self, kind, addr, size, value):
        if kind == "write" and addr - BASE in range(0x1000):
            assert size == 4
            self.regs[addr - BASE] = value
            self.written.append((addr - BASE, value))
        elif kind == "write":
            self.ioapics[addr & ~0xfff].write(addr & 0xfff, value)

    def msrs(self):
        """{offset of the xAPIC page: value} of the last writes."""
        assert not self.m.events("no_msr"), "#GP"
        return {(e.addr - 0x800) * 16: e.value
                for e in self.m.events("wrmsr") if e.addr >= 0x800}


def set_up(registers):
    """Spurious vector and enabled, all of the LVT masked, TPR 0."""
    assert registers[SVR] == 0x1ff and registers[TPR] == 0
    assert all(registers[at] & MASKED for at in LVTS)


def test_xapic(m):
    x = Apic(m)
    set_up(dict(x.written))
    assert x.cpu.msr(m.MSR_APIC_BASE) == BASE | ENABLE | BSP
    assert m.local_apic_id() == 5
    m.local_apic_eoi()
    assert x.written[-1] == (EOI, 0)
    assert not x.msrs()


@pytest.mark.parametrize("asked, base", [
    (True, ENABLE), (True, 0), (False, ENABLE | X2APIC)])
def test_x2apic(m, asked, base):
    """Where remapping allows it, and where firmware is in it already; from
    off the way is by xAPIC mode (SDM figure 11-27)."""
    m.clear_events()
    x = Apic(m, asked, BASE | BSP | base)
    steps = [e.value & (ENABLE | X2APIC) for e in m.events("wrmsr")
             if e.addr == m.MSR_APIC_BASE]
    assert steps == [ENABLE] * (not base) + [ENABLE | X2APIC]
    assert x.cpu.msr(m.MSR_APIC_BASE) == BASE | BSP | ENABLE | X2APIC
    set_up(x.msrs())
    assert m.local_apic_id() == 0x12345
    m.local_apic_eoi()
    assert x.msrs()[EOI] == 0 and not x.written
    assert m.local_apic_send(0x10007, 0x4608) == 0
    assert x.msrs()[ICR] == 0x10007 << 32 | 0x4608 and ICR_HIGH not in x.msrs()


def test_an_apic_that_firmware_left_off(m):
    x = Apic(m, base=BASE | BSP)
    assert x.cpu.msr(m.MSR_APIC_BASE) == BASE | BSP | ENABLE
    set_up(dict(x.written))


@pytest.mark.parametrize("busy, error", [(0, 0), (3, 0), (10**9, "ETIMEDOUT")])
def test_an_ipi(m, busy, error):
    """The destination first: the write of the low half sends it. Bounded."""
    x = Apic(m, busy=busy)
    x.written.clear()
    got = m.local_apic_send(7, 0x4608)
    assert got == (-getattr(m, error) if error else 0)
    assert x.written == [(ICR_HIGH, 7 << 24), (ICR, 0x4608)]
    assert busy - x.busy <= 100000 and (error or not x.busy)


def test_an_id_that_xapic_mode_lacks(m):
    """Cut to 8 bits it would be another CPU's, or all of them."""
    x = Apic(m)
    x.written.clear()
    assert m.local_apic_send(0x107, 0x4608) == -m.EINVAL
    assert m.local_apic_send(0xff, 0x4608) == -m.EINVAL and not x.written


# --- Its timer -------------------------------------------------------------

LVT_TIMER, INITIAL, CURRENT, DIVIDE = 0x320, 0x380, 0x390, 0x3e0
TSC_DEADLINE, NEVER = 2 << 17, 2**64 - 1
WINDOW = 20_000_000                         # 10 ms of 2 GHz


class Timer(Apic):
    """Counts once for so many ticks of the TSC. smi: ticks that firmware
    takes while the count is read; dead: it does not count."""

    def __init__(self, m, ticks=15, deadline=False, allowed=True, smi=0,
                 dead=False, **apic):
        super().__init__(m, **apic)
        self.ticks, self.smi, self.dead = ticks, smi, dead
        self.started = None
        m.lib.fakes_relax_ticks = 100
        for at in (LVT_TIMER, INITIAL, CURRENT, DIVIDE):
            self.cpu.set_msr(0x800 + at // 16, 0)
        self.cpu.cpuid(1, ecx=(1 << 24) * deadline)
        if deadline:
            self.cpu.set_msr(0x6e0, 0)
        self.written.clear()
        self.status = m.local_apic_timer_init(0xfe, WINDOW, allowed)

    def write(self, kind, addr, size, value):
        super().write(kind, addr, size, value)
        if addr - BASE == INITIAL:
            self.started = self.m.tsc

    def read(self, kind, addr, size):
        if addr - BASE != CURRENT:
            return super().read(kind, addr, size)
        assert self.regs[DIVIDE] == 0xb
        left = 0 if self.dead else int((self.m.tsc - self.started) //
                                       self.ticks)
        self.m.tsc += self.smi
        return self.regs[INITIAL] - left

    def over(self):
        """The TSC when it interrupts, by what was last written."""
        assert self.regs[LVT_TIMER] == 0xfe
        count = self.regs[INITIAL]
        return self.started + count * self.ticks if count else NEVER


def test_a_timer_by_deadline(m):
    """Not one before the LVT has the mode (SDM 11.5.4.1)."""
    x = Timer(m, deadline=True)
    assert x.status == 0 and x.written == [(LVT_TIMER, TSC_DEADLINE | 0xfe)]
    kinds = [e.kind for e in m.events() if e.kind in ("write", "mfence")]
    assert kinds[-2:] == ["write", "mfence"]
    for deadline, msr in ((1000, 1000), (NEVER, 0), (2**63, 2**63)):
        m.local_apic_timer_set(deadline)
        assert x.cpu.msr(0x6e0) == msr


def test_a_deadline_that_is_not_to_be_trusted(m):
    x = Timer(m, deadline=True, allowed=False)
    assert x.status == 0 and x.regs[LVT_TIMER] == 0xfe
    m.local_apic_timer_set(m.tsc + 15_000_000)
    assert x.over() != NEVER and x.cpu.msr(0x6e0) == 0


@pytest.mark.parametrize("ticks", [15, 83.3, 1, 2.5])
def test_a_timer_that_counts(m, ticks):
    """Not later than a microsecond, and hardly earlier."""
    x = Timer(m, ticks)
    assert x.status == 0
    for left in (1, 1000, 10**6, 10**9):
        m.tsc = 10**12
        m.local_apic_timer_set(m.tsc + left)
        assert -left / 10**4 <= x.over() - m.tsc - left <= 2000
    m.local_apic_timer_set(NEVER)
    assert x.over() == NEVER


@pytest.mark.parametrize("smi", [10**5, 10**8])
def test_a_timer_that_firmware_has_disturbed(m, smi):
    """Early, so that it is set again; never late."""
    x = Timer(m, smi=smi)
    for left in (1000, 10**6, 10**9):
        m.tsc = 10**12
        m.local_apic_timer_set(m.tsc + left)
        assert 0 < x.over() - m.tsc <= left + 2000


@pytest.mark.parametrize("late", [0, 1, 10**9])
def test_a_deadline_that_is_past(m, late):
    x = Timer(m)
    m.tsc = 10**12
    m.local_apic_timer_set(m.tsc - late)
    assert x.over() - m.tsc <= 2000


def test_a_deadline_far_away(m):
    """More than it counts: earlier, within an hour even if it is slow."""
    x = Timer(m, ticks=1)
    m.tsc = 10**12
    m.local_apic_timer_set(m.tsc + 2**50)
    assert 2**30 < x.over() - m.tsc <= 2**32


def test_a_timer_that_does_not_count(m):
    assert Timer(m, dead=True).status == -m.EIO


# --- Vectors ---------------------------------------------------------------

def test_a_vector_s_handler(m):
    """Then the EOI: without it nothing of its priority comes any more."""
    x, seen = Apic(m), []

    def serve(ctx, vector):
        seen.append((m.ffi.from_handle(ctx), vector, x.written[-1][0] == EOI))
    handler = m.callback("host_irq_handler *", serve)
    x.written.clear()
    one = m.host_irq_alloc(handler, m.handle("one"))
    block = m.host_irq_alloc_block(m.NULL, 4, handler, m.handle("block"))
    assert 0x30 <= one < 0xff and block >= 0x30 and block % 4 == 0
    assert one not in range(block, block + 4)
    x.written.append((0, 0))
    for vector in (one, block + 3):
        m.host_irq_dispatch(1 << 31 | vector)       # as an exit says it
        assert x.written[-1] == (EOI, 0)
        x.written.append((0, 0))
    assert seen == [("one", one, False), ("block", block + 3, False)]
    for n in (one, *range(block, block + 4)):
        m.host_irq_free(m.NULL, n)
    assert m.host_irq_alloc(handler, m.NULL) == one
    m.host_irq_free(m.NULL, one)


def test_a_vector_that_nobody_has(m):
    """It needs its EOI; a line in the log each time their number doubles."""
    x = Apic(m)
    x.written.clear()
    m.be(2)
    for _ in range(5):
        m.host_irq_dispatch(0x42)
    assert x.written == [(EOI, 0)] * 5
    assert [line for _, line in m.log_lines()] == [
        f"interrupt at vector 0x42, which nobody asked for ({n} such)"
        for n in (1, 2, 4)]


def test_the_spurious_vector_has_no_eoi(m):
    """SDM 11.9: it would end another's."""
    x = Apic(m)
    x.written.clear()
    m.host_irq_dispatch(0xff)
    assert x.written == [] and m.log_text() == ""


def test_the_kick_does_nothing_but_end_a_run(m):
    x = Apic(m)
    x.written.clear()
    m.host_irq_dispatch(m.HOST_VECTOR_TIMER)
    assert x.written == [(EOI, 0)] and m.log_text() == ""


class Owners:
    """Of vectors of several CPUs; what they have seen."""

    def __init__(self, m):
        self.m, self.seen = m, []
        self.handler = m.callback("host_irq_handler *", self._serve)

    def _serve(self, ctx, vector):
        self.seen.append((self.m.ffi.from_handle(ctx), vector))

    def cpu(self, index):
        return self.m.NULL if index is None else self.m.percpu_at(index)

    def alloc(self, index, name, count=1):
        return self.m.host_irq_alloc_block(self.cpu(index), count,
                                           self.handler, self.m.handle(name))

    def take_all(self, index, count=1):
        got = []
        while (first := self.alloc(index, "all", count)) >= 0:
            got += range(first, first + count)
            assert len(got) <= 256
        assert first == -self.m.ENOSPC
        return got

    def come(self, index, vector):
        self.m.be(index)
        self.m.host_irq_dispatch(vector)
        seen, self.seen = self.seen, []
        return seen

    def free(self, index, vectors):
        for vector in vectors:
            if index is not None:
                self.m.be(index)
            self.m.host_irq_free(self.cpu(index), vector)


@pytest.mark.parametrize("index", [None, 0, 2])
def test_no_vector_left(m, index):
    """None below, none twice; the last three are Monocle's own."""
    Apic(m)
    x = Owners(m)
    got = x.take_all(index, 32) + x.take_all(index)
    assert sorted(got) == list(range(0x30, 0xfd))
    x.free(index, got)


def test_each_cpu_has_vectors_of_its_own(m):
    """Beside those that are the same on all of them."""
    Apic(m)
    x = Owners(m)
    everywhere = x.alloc(None, "everywhere")
    here, there = x.take_all(0), x.take_all(2)
    assert here == there and everywhere not in here
    assert x.alloc(None, "no more") == -m.ENOSPC
    x.free(0, here)
    assert x.alloc(None, "no more") == -m.ENOSPC, "CPU 2 has them all"
    x.free(2, there)
    first, second = x.alloc(0, "first"), x.alloc(2, "second")
    assert first == second
    assert x.come(0, first) == [("first", first)]
    assert x.come(2, first) == [("second", first)]
    for index in 0, 2:
        assert x.come(index, everywhere) == [("everywhere", everywhere)]
    x.free(None, [everywhere])
    x.free(0, [first])
    x.free(2, [first])
    assert m.log_text() == ""


def irr(apic, *vectors):
    for n in range(8):
        apic.regs[0x200 + 16 * n] = sum(
            1 << v % 32 for v in vectors if v // 32 == n)


@pytest.mark.parametrize("vectors", [1, 32])
def test_an_interrupt_on_its_way_when_its_vector_is_freed(m, vectors):
    """By another CPU, or by its own: it comes to its handler, and nobody else
    gets the vector before. The CPU is asked to look, and kicked, for it may be
    asleep with interrupts off; an NMI that is on its way is enough."""
    apic = Apic(m)
    look = [(ICR_HIGH, 0x20 << 24), (ICR, 0x4000 | m.HOST_VECTOR_FREED)]
    kick = [(ICR_HIGH, 0x20 << 24), (ICR, 0x4400)]
    x = Owners(m)
    for own in False, True:
        old = x.alloc(2, "old", vectors)
        last = old + vectors - 1
        irr(apic, last)
        apic.written.clear()
        m.percpu_at(2).kicked = False
        m.be(2 if own else 0)
        for n in range(old, last + 1):
            m.host_irq_free(m.percpu_at(2), n)
        assert apic.written == (
            [] if own else look + kick + look * (vectors - 1))
        x.come(2, m.HOST_VECTOR_FREED)
        new = x.alloc(2, "new", vectors)
        assert last not in range(new, new + vectors)
        irr(apic)
        assert x.come(2, last) == [("old", last)]
        assert x.alloc(2, "newer", vectors) == old
        assert x.come(2, last) == [("newer", last)]
        x.free(2, [*range(old, last + 1), *range(new, new + vectors)])
    assert m.log_text() == ""


def test_the_timer_gives_no_vector_away(m):
    """It asks for no lock: another CPU may be at work at them meanwhile."""
    Apic(m)
    x = Owners(m)
    old = x.alloc(2, "old")
    m.be(0)
    m.host_irq_free(m.percpu_at(2), old)
    x.come(2, m.HOST_VECTOR_TIMER)
    assert x.come(2, old) == [("old", old)]
    assert x.come(2, old) == []


# --- IOAPICs -------------------------------------------------------------

class Ioapic:
    """24 pins; `live`: entries that were open with half of another;
    `edges`: writes of an entry's low half that were not for a level."""

    def __init__(self, pins=24):
        self.index, self.pins, self.table = 0, pins, {}
        self.live, self.edges = [], []
        for pin in range(pins):
            self.set(pin, 0x00000000000000fe)     # as firmware left it

    def set(self, pin, entry):
        for n in range(2):
            self.table[0x10 + 2 * pin + n] = entry >> 32 * n & 0xffffffff

    def read(self, at):
        assert at == 0x10
        return (self.pins - 1) << 16 | 0x20 if self.index == 1 \
            else self.table[self.index]

    def write(self, at, value):
        if at == 0:
            self.index = value
            return
        assert at == 0x10 and self.index in self.table, "no such register"
        low = self.index & ~1
        if self.index & 1 and not self.table[low] & MASKED:
            self.live.append(self.index)
        if not self.index & 1 and not value & LEVEL:
            self.edges.append(self.index)
        self.table[self.index] = value

    def entry(self, pin):
        return self.table[0x11 + 2 * pin] << 32 | self.table[0x10 + 2 * pin]


FIRST, SECOND = 0xfec00000, 0xfec10000
# Linux's usual PC: the PIT at pin 2, SCI level and low at 9; a line of the
# second IOAPIC; conforming polarity and trigger are the bus's: edge, high.
OVERRIDES = [(0, 0, 2), (9, 0xf, 9), (5, 0xd, 26), (6, 0x5, 6), (7, 0x3, 7),
             (10, 0x7, 10)]


class Madt:
    def __init__(self, m, **apic):
        self.m = m
        self.x = Apic(m, **apic)
        self.x.ioapics = {FIRST: Ioapic(), SECOND: Ioapic(8)}
        self.madt = m.new("struct acpi_madt *", {
            "ioapic_count": 2, "override_count": len(OVERRIDES)})
        for n, (ident, address, gsi) in enumerate([(2, FIRST, 0),
                                                   (4, SECOND, 24)]):
            row = self.madt.ioapics[n]
            row.id, row.address, row.gsi_base = ident, address, gsi
        for n, (irq, flags, gsi) in enumerate(OVERRIDES):
            row = self.madt.overrides[n]
            row.irq, row.flags, row.gsi = irq, flags, gsi

    def pin(self, gsi):
        return self.x.ioapics[SECOND].entry(gsi - 24) if gsi >= 24 else \
            self.x.ioapics[FIRST].entry(gsi)

    def open(self):
        """{gsi: entry} of what is not masked."""
        return {g: self.pin(g) for g in range(32) if not self.pin(g) & MASKED}

    def quiet(self):
        assert not any(i.live for i in self.x.ioapics.values())


@pytest.fixture
def madt(m):
    x = Madt(m)
    m.host_irq_remap(m.NULL, m.NULL)
    m.host_irq_init(x.madt)
    return x


def test_all_is_masked(m, madt):
    assert madt.open() == {}
    masks = {e.addr: e.value for e in m.events("out")}
    assert masks == {0x21: 0xff, 0xa1: 0xff}
    madt.quiet()


def test_an_ioapic_out_of_reach_is_named(m):
    x = Madt(m)
    m.lib.unmapped = SECOND
    m.host_irq_init(x.madt)
    assert "IOAPIC 4 at 0xfec10000 cannot be mapped" in m.log_text()
    assert all(gsi >= 24 for gsi in x.open())
    assert m.host_irq_route(x.madt, 5, 0x40) == -m.ENODEV


@pytest.mark.parametrize("irq, gsi, bits", [
    (0, 2, 0), (4, 4, 0), (9, 9, LEVEL | LOW), (5, 26, LEVEL), (6, 6, 0),
    (7, 7, LOW), (10, 10, LOW)])
def test_an_isa_line(m, madt, irq, gsi, bits):
    """Pin, trigger and polarity as the MADT overrides them."""
    assert m.host_irq_route(madt.madt, irq, 0x61) == 0
    assert madt.open() == {gsi: 5 << 56 | bits | 0x61}
    assert m.host_irq_gsi(madt.madt, irq) == gsi
    madt.quiet()


def test_a_pci_line(m, madt):
    """Level and low; masked until it is opened, and again."""
    line = m.new("struct host_irq_line *")
    assert m.host_irq_line(madt.madt, 31, 0x52, line) == 0
    assert madt.open() == {}
    for masked in (False, True, False):
        m.host_irq_line_mask(line, masked)
        assert madt.open() == ({} if masked else
                               {31: 5 << 56 | LEVEL | LOW | 0x52})
    madt.quiet()


def test_a_line_for_another_cpu(m, madt):
    """By the next write of the entry, its pin masked meanwhile, and ever for a
    level: as an edge's it would forget that an EOI is due (Linux:
    __eoi_ioapic_pin), and send one cause to both."""
    line = m.new("struct host_irq_line *")
    assert m.host_irq_line(madt.madt, 31, 0x52, line) == 0
    m.host_irq_line_mask(line, False)
    madt.x.ioapics[SECOND].edges.clear()
    assert m.host_irq_line_aim(line, 7) == 0
    for masked in True, False:
        m.host_irq_line_mask(line, masked)
    assert madt.open() == {31: 7 << 56 | LEVEL | LOW | 0x52}
    assert madt.x.ioapics[SECOND].edges == []
    madt.quiet()


def test_no_such_pin(m, madt):
    line = m.new("struct host_irq_line *")
    assert m.host_irq_line(madt.madt, 32, 0x52, line) == -m.ENODEV
    assert [m.host_irq_has_gsi(madt.madt, g)
            for g in (0, 23, 24, 31, 32, 2**32 - 1)] == [True] * 4 + [False] * 2
    madt.madt.ioapic_count = 0
    assert m.host_irq_route(madt.madt, 4, 0x40) == -m.ENODEV
    assert madt.open() == {}


def test_a_remapped_pin(m, madt):
    """The entry is composed by who has the remapping table; where it cannot
    the pin stays masked."""
    seen, old = [], []

    def compose(ctx, pin):
        seen.append((m.ffi.from_handle(ctx), pin.ioapic_id, pin.vector,
                     pin.apic_id, pin.level, pin.active_low))
        old.append(pin.entry)
        if 0x70 in (pin.vector, pin.apic_id):
            return 0
        return 1 << 48 | 3 << 49 | pin.vector
    m.host_irq_remap(m.callback(
        "u64(*)(void *, const struct host_irq_pin *)", compose, 0),
        m.handle("vtd"))
    assert m.host_irq_route(madt.madt, 9, 0x61) == 0
    assert madt.open() == {9: 7 << 48 | 0x61}
    line = m.new("struct host_irq_line *")
    assert m.host_irq_line(madt.madt, 27, 0x62, line) == 0
    assert m.host_irq_route(madt.madt, 4, 0x70) == -m.ENODEV
    assert seen == [("vtd", 2, 0x61, 5, True, True),
                    ("vtd", 4, 0x62, 5, True, True),
                    ("vtd", 2, 0x70, 5, False, False)]
    assert set(madt.open()) == {9}
    # For another CPU: who composes has the entry to keep to.
    assert m.host_irq_line_aim(line, 7) == 0
    assert m.host_irq_line_aim(line, 0x70) == -m.ENODEV
    assert seen[3:] == [("vtd", 4, 0x62, to, True, True) for to in (7, 0x70)]
    assert old == [0, 0, 0, 7 << 48 | 0x62, 7 << 48 | 0x62]
    m.host_irq_line_mask(line, False)
    assert madt.open() == {9: 7 << 48 | 0x61, 27: 7 << 48 | 0x62}
