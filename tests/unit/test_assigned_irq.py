# SPDX-License-Identifier: MIT
"""Interrupts of an assigned function, between a device and a guest.

The device is written from PCI 3.0, 6.8: it looks at the host's configuration
space and BAR, masks and keeps pending what it finds masked there. The model is
the same device with the guest's registers: what it sends at once is what the
guest's local APIC has to see.
"""
import collections
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harness

SOURCES = [
    "vmm/assign/assigned_irq.c", "vmm/assign/assigned_message.c",
    "vmm/assign/assigned_msix.c", "vmm/assign/assigned_line.c",
    "vmm/core/bus.c", "kernel/host_irq.c",
    "vmm/devmodel/pci_bus.c", "vmm/devmodel/pci_assigned.c",
    "vmm/devmodel/ioapic.c", "vmm/assign/storm.c", "vmm/core/vclock.c", "drivers/vtd/remap.c", "kernel/vectors.c"]
SOURCE = 0x28               # the function's requester ID
MSI, MSIX = 0x50, 0x70      # capabilities
TABLE, PBA = 0x2000, 0x2800     # in the BAR, in one page if they fit
MASTER, INTX_DISABLE = 4, 0x400
LEVEL = 0xa000              # a redirection entry: level, low
LINE = 17
HZ = 1_000_000_000
ENTRY = struct.Struct("<QII")  # address, data, vector control


@pytest.fixture(scope="module")
def m():
    return harness.build("assigned_irq", SOURCES, fakes="tests/unit/irq_fakes.c",
                         headers=["tests/unit/irq_fakes.h", "kernel/traps.h",
                                  "kernel/percpu.h",
                                  "vmm/assign/storm.h", "vmm/core/vclock.h"])


class Registers:
    """MSI, MSI-X and COMMAND as some side has them."""

    def __init__(self, wide, maskable):
        self.wide, self.maskable = wide, maskable
        self.data_at = MSI + (12 if wide else 8)
        self.mask_at = self.data_at + 4

    # read(offset, size) and entry(n) are the side's own.

    def message(self, n):
        """(address, data, masked) of message n, or None."""
        control = self.read(MSIX + 2, 2)
        if control & 0x8000:
            address, data, mask = self.entry(n)
            return address, data, bool(mask & 1 or control & 0x4000)
        control = self.read(MSI + 2, 2)
        if not control & 1:
            return None
        count = 1 << min(control >> 4 & 7, control >> 1 & 7)
        if n >= count:
            return None
        address = self.read(MSI + 4, 4)
        if self.wide:
            address |= self.read(MSI + 8, 4) << 32
        data = self.read(self.data_at, 2) & ~(count - 1) | n
        mask = self.read(self.mask_at, 4) if self.maskable else 0
        return address, data, bool(mask >> n & 1)

    def msix(self):
        return bool(self.read(MSIX + 2, 2) & 0x8000)


class Host(Registers):
    """The host's registers, and the device behind them."""

    def __init__(self, m, wide, maskable, multiple, entries):
        super().__init__(wide, maskable)
        self.m = m
        self.flying = []        # vectors on their way
        self.pba = max(PBA, TABLE + 16 * entries)
        config = bytearray(256)
        config[0:4] = b"\x34\x12\xe8\x11"
        config[6], config[0x34], config[0x3d] = 0x10, MSI, 1
        config[MSI:MSI + 3] = bytes((5, MSIX if entries else 0,
                                     wide << 7 | multiple << 1))
        config[MSI + 3] = maskable
        if entries:
            config[MSIX] = 0x11
            config[MSIX + 2:MSIX + 4] = (entries - 1).to_bytes(2, "little")
            config[MSIX + 4:MSIX + 12] = (TABLE | self.pba << 32).to_bytes(
                8, "little")
        self.config = m.ffi.buffer(m.irq_config)
        self.config[0:256] = bytes(config)
        self.bar = memoryview(m.ffi.buffer(m.irq_bar)).cast("B")
        self.bar[:] = bytes(len(self.bar))
        self.entries = entries
        for n in range(entries):
            self.bar[TABLE + 16 * n + 12] = 1
        self.pending_at = self.mask_at + 4

    def read(self, at, size):
        return int.from_bytes(self.config[at:at + size], "little")

    def entry(self, n):
        return ENTRY.unpack_from(self.bar, TABLE + 16 * n)

    def _pending(self):
        """Where bits are: in the PBA, or MSI's own."""
        return (self.bar, self.pba) if self.msix() else \
            (self.m.irq_config, self.pending_at)

    def _set_pending(self, n, value):
        store, at = self._pending()
        at += n // 8
        store[at] = store[at] & ~(1 << n % 8) | value << n % 8

    def raise_(self, n):
        """False: there is no such message now."""
        found = self.message(n)
        if found is None:
            return False
        address, data, masked = found
        if masked:
            self._set_pending(n, True)
            return True
        self.send(self.m.irq_message(SOURCE, address, data))
        return True

    def send(self, arrival):
        assert arrival >= 0x30, "blocked by the IOMMU"
        cpu, vector = divmod(arrival, 256)
        self.m.irq_irr[cpu][vector] += 1
        self.flying.append((cpu, vector))

    def pump(self):
        """Sends what is pending and no longer masked."""
        if not self.msix() and not self.maskable:
            return
        store, at = self._pending()
        count = max(self.entries, 32) if self.msix() else 32
        bits = int.from_bytes(bytes(store[at:at + count // 8]), "little")
        while bits:
            n = (bits & -bits).bit_length() - 1
            bits &= bits - 1
            found = self.message(n)
            if found and not found[2]:
                self._set_pending(n, False)
                self.raise_(n)

    def look(self):
        """Those CPUs that were asked to, and are awake."""
        for cpu in range(self.m.IRQ_CPUS):
            if self.m.irq_looks[cpu]:
                assert self.m.irq_kicked[cpu]
                self.m.irq_looks[cpu] = False
                self.m.irq_be(cpu)
                self.m.host_irq_dispatch(self.m.HOST_VECTOR_FREED)

    def land(self, at=0):
        """All from the at-th on, each at its CPU."""
        self.look()
        flying, self.flying[at:] = self.flying[at:], []
        for cpu, vector in flying:
            self.m.irq_irr[cpu][vector] -= 1
            self.m.irq_be(cpu)
            self.m.host_irq_dispatch(vector)


class Guest(Registers):
    """What the guest reads of its registers."""

    def __init__(self, m, host):
        super().__init__(host.wide, host.maskable)
        self.m = m

    def read(self, at, size):
        return self.m.irq_guest_read(at, size)

    def write(self, at, size, value):
        self.m.irq_guest_write(at, size, value)

    def entry(self, n):
        low, high = (self.m.irq_table_read(TABLE + 16 * n + k, 8)
                     for k in (0, 8))
        return low, high & 0xffffffff, high >> 32

    def entry_write(self, n, k, value, size=4):
        self.m.irq_table_write(TABLE + 16 * n + 4 * k, size, value)

    def enable_msi(self, on=True, multiple=0):
        self.write(MSI + 2, 2, multiple << 4 | on)

    def enable_msix(self, on=True, masked=False):
        self.write(MSIX + 2, 2, on << 15 | masked << 14)

    def set_msi(self, address, data):
        self.write(MSI + 4, 4, address)
        if self.wide:
            self.write(MSI + 8, 4, address >> 32)
        self.write(self.data_at, 2, data)

    def mask_msi(self, mask):
        self.write(self.mask_at, 4, mask)

    def intx(self):
        return not (self.msix() or self.read(MSI + 2, 2) & 1
                    or self.read(4, 2) & INTX_DISABLE)

    def pending(self, n):
        if self.msix():
            word = self.m.irq_table_read(PBA + n // 32 * 4, 4)
        else:
            word = self.read(self.mask_at + 4, 4)
        return bool(word >> n % 32 & 1)


class Both:
    """Device, Monocle and guest."""

    def __init__(self, m, remapping=True, wide=True, maskable=True,
                 multiple=5, entries=0, pin=1, gsi=-1, bar=None, command=0):
        self.m = m
        self.host = Host(m, wide, maskable, multiple, entries)
        m.irq_config[5] = command >> 8
        m.lib.irq_bar_base = m.IRQ_BAR if bar is None else bar
        m.lib.irq_direct = remapping == "but not its own"
        assert m.irq_start(bool(remapping), pin, gsi) == 0
        self.guest = Guest(m, self.host)

    @staticmethod
    def take(m, cpu, left):
        """All vectors of a CPU but so many; how many that are."""
        handler = m.callback("host_irq_handler *", lambda *_: None)
        got = []
        while (vector := m.host_irq_alloc_block(
                m.percpu_at(cpu), 1, handler, m.NULL)) >= 0:
            got.append(vector)
        m.irq_be(cpu)
        for vector in got[:left]:
            m.host_irq_free(m.percpu_at(cpu), vector)
        return len(got) - left

    def sent(self):
        """What has reached the guest's local APIC since the last call."""
        got = [(s.address, s.data)
               for s in self.m.irq_sent[0:self.m.irq_sent_count]]
        self.m.lib.irq_sent_count = 0
        return got

    def settle(self):
        self.host.land()
        self.host.pump()
        self.host.land()
        return self.sent()

    def raise_(self, *messages):
        """What arrives of them."""
        for n in messages:
            self.host.raise_(n)
        return self.settle()

    def nothing_is_left(self):
        """Of vectors and entries, when INTx is not wanted either."""
        self.guest.write(4, 2, INTX_DISABLE)
        self.host.land()
        return (self.m.irq_vectors(), self.m.irq_entries()) == (0, 0)


TO = 0xfee00000


# --- MSI -------------------------------------------------------------------

@pytest.mark.parametrize("remapping", [False, True, "but not its own"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("multiple", range(6))
def test_messages_of_one_msi(m, remapping, wide, multiple):
    """The data's low bits say which; each has its own vector on the host. The
    plain format where its own unit is off, whatever others do."""
    both = Both(m, remapping, wide=wide)
    count = 1 << multiple
    both.guest.set_msi(TO, 0x40e0)
    both.guest.enable_msi(multiple=multiple)
    assert m.irq_vectors() == count
    assert m.irq_entries() == (count if remapping is True else 0)
    for n in range(count):
        assert both.raise_(n) == [(TO, 0x40e0 | n)]
    assert both.raise_(*range(count)) == [
        (TO, 0x40e0 | n) for n in range(count)]
    # Data whose low bits are not 0: they are the device's to set.
    both.guest.set_msi(TO, 0x40ff)
    assert both.raise_(0) == [(TO, 0x40ff & ~(count - 1))]
    assert not both.host.raise_(count)
    both.guest.enable_msi(False)
    assert both.nothing_is_left()


@pytest.mark.parametrize("offered, enabled, count", [
    (0, 5, 1), (2, 5, 4), (5, 2, 4), (7, 7, 32), (3, 6, 8)])
def test_no_more_messages_than_the_device_has(m, offered, enabled, count):
    both = Both(m, multiple=offered)
    assert both.guest.read(MSI + 2, 2) >> 1 & 7 == offered
    both.guest.enable_msi(multiple=enabled)
    assert m.irq_vectors() == count


@pytest.mark.parametrize("left, count", [(40, 32), (12, 8), (1, 1), (0, 0)])
def test_fewer_messages_where_there_are_few_vectors(m, left, count):
    """Said once; the first ones arrive."""
    both = Both(m, pin=0)
    m.irq_leave(left)
    before = m.irq_vectors()
    both.guest.set_msi(TO, 0x40)
    both.guest.enable_msi(multiple=5)
    assert m.irq_vectors() - before == count
    assert m.log_text().count("no vector is left") == (count < 32)
    assert both.raise_(*range(count)) == [
        (TO, 0x40 | n) for n in range(count)]


def test_without_an_entry_no_vector_is_lost(m):
    """A guest may try again and again."""
    both = Both(m, pin=0, entries=2)
    m.irq_no_entry()
    for _ in range(300):
        both.guest.enable_msi(multiple=2)
        both.guest.enable_msi(False)
    assert m.irq_vectors() == 0
    assert both.raise_(0) == []
    assert "no vector is left" in m.log_text()


@pytest.mark.parametrize("entries, count", [(0, 32), (40, 40)])
def test_no_memory_for_messages(m, entries, count):
    both = Both(m, entries=entries)
    m.lib.irq_no_memory = True
    status = m.irq_start(True, 1, -1)
    m.lib.irq_no_memory = False
    assert status == -m.ENOMEM and both.sent() == []
    assert m.log_text() == ("too little memory for an assigned function's "
                            f"{count} messages")


def test_masked_messages_wait(m):
    both = Both(m)
    both.guest.set_msi(TO, 0x60)
    both.guest.mask_msi(0b0101)
    both.guest.enable_msi(multiple=2)
    assert both.raise_(0, 1, 2, 3) == [(TO, 0x61), (TO, 0x63)]
    assert [both.guest.pending(n) for n in range(4)] == [True, False] * 2
    both.guest.mask_msi(0b0100)
    assert both.settle() == [(TO, 0x60)]
    both.guest.set_msi(TO | 0x1000, 0x80)
    both.guest.mask_msi(0)
    assert both.settle() == [(TO | 0x1000, 0x82)]
    assert not any(both.guest.pending(n) for n in range(4))


def test_a_message_on_its_way_when_the_guest_masks_it(m):
    both = Both(m)
    both.guest.set_msi(TO, 0x60)
    both.guest.enable_msi(multiple=1)
    both.host.raise_(1)
    both.guest.mask_msi(2)
    both.host.land()
    assert both.sent() == [] and both.guest.pending(1)
    assert not both.guest.pending(0)
    both.guest.set_msi(TO, 0x80)
    both.guest.mask_msi(0)
    assert both.sent() == [(TO, 0x81)] and not both.guest.pending(1)


def test_an_affinity_change_loses_nothing(m):
    both = Both(m, maskable=False)
    both.guest.set_msi(TO, 0x60)
    both.guest.enable_msi()
    for n in range(20):
        both.host.raise_(0)
        both.guest.set_msi(TO | n << 12, 0x61 + n)
        assert both.settle() == [(TO | n << 12, 0x61 + n)]
    assert m.irq_vectors() == 1


# --- MSI-X -----------------------------------------------------------------

def test_entries_are_masked_after_reset(m):
    both = Both(m, entries=4)
    both.guest.entry_write(2, 3, 0)
    m.irq_reset()
    assert [both.guest.entry(n) for n in range(4)] == [(0, 0, 1)] * 4


@pytest.mark.parametrize("size", [4, 8])
def test_entries_masks_and_pending_bits(m, size):
    both = Both(m, entries=8)
    guest = both.guest
    for n in range(8):
        if size == 4:
            for k, value in enumerate((TO, 0, 0x30 + n, n in (2, 5))):
                guest.entry_write(n, k, value)
        else:
            guest.entry_write(n, 0, TO, 8)
            guest.entry_write(n, 2, 0x30 + n | (n in (2, 5)) << 32, 8)
    guest.enable_msix(masked=True)
    assert both.raise_(1, 2) == [] and guest.pending(1) and guest.pending(2)
    guest.enable_msix()
    assert both.settle() == [(TO, 0x31)]
    assert not guest.pending(1) and guest.pending(2)
    guest.entry_write(2, 2, 0x77)
    guest.entry_write(2, 3, 0)
    assert both.settle() == [(TO, 0x77)] and not guest.pending(2)
    # Masked ones have no vector before they are first unmasked.
    assert m.irq_vectors() == 7
    assert both.raise_(5) == [] and guest.pending(5)
    guest.enable_msix(False)
    assert both.nothing_is_left()


def test_an_entry_is_masked_while_its_message_is_on_its_way(m):
    both = Both(m, entries=40)
    both.guest.enable_msix()
    for k, value in enumerate((TO, 0, 0x55, 0)):
        both.guest.entry_write(37, k, value)
    both.host.raise_(37)
    both.guest.entry_write(37, 3, 1)
    both.host.land()
    assert both.sent() == [] and both.guest.pending(37)
    assert m.irq_table_read(PBA + 4, 1) == 1 << 5
    assert m.irq_table_read(PBA, 8) == 1 << 37
    assert not both.guest.pending(36)
    both.guest.entry_write(37, 2, 0x56)
    both.guest.entry_write(37, 3, 0)
    assert both.sent() == [(TO, 0x56)] and not both.guest.pending(37)


def test_an_entry_is_masked_while_it_changes(m):
    """6.8.2.9; firmware may have left it open, with a message of its own."""
    both = Both(m, entries=2)
    for n in range(2):
        both.host.bar[TABLE + 16 * n + 12] = 0
        both.guest.entry_write(n, 3, 0)
    bar, masks, changes = int(m.ffi.cast("uintptr_t", m.irq_bar)), {}, 0
    m.clear_events()
    both.guest.enable_msix()
    for e in m.events("write"):
        n, dword = divmod((e.addr - bar - TABLE) // 4, 4)
        if dword == 3:
            masks[n] = e.value & 1
        else:
            assert masks.get(n), "it could be sent half-changed"
            changes += 1
    assert changes == 6 and masks == {0: 0, 1: 0}


def test_the_table_is_written_while_msix_is_on_and_masked(m):
    """Linux does so, too: some devices have no table while MSI-X is off."""
    both = Both(m, entries=4)
    both.guest.entry_write(1, 3, 0)
    bar, states = int(m.ffi.cast("uintptr_t", m.irq_bar)), []

    def on_write(kind, addr, size, value):
        states.append(both.host.read(MSIX + 2, 2) & 0xc000)
        both.host.bar[addr - bar:addr - bar + size] = \
            value.to_bytes(size, "little")
    m.on_write(on_write)
    both.guest.enable_msix()
    assert len(states) >= 4 and set(states) == {0xc000}
    assert both.host.read(MSIX + 2, 2) & 0xc000 == 0x8000
    assert len(both.raise_(1)) == 1


def test_a_table_in_a_bar_without_an_address(m):
    """It would be at what lies at address 0. The guest is offered MSI."""
    both = Both(m, entries=4, bar=0)
    both.guest.enable_msix()
    assert not both.guest.msix() and not any(both.host.bar[TABLE:TABLE + 12])
    assert both.guest.read(MSI, 2) == 5     # the last of the list
    both.guest.set_msi(TO, 0x40)
    both.guest.enable_msi()
    assert both.raise_(0) == [(TO, 0x40)]


def test_a_table_of_2048_entries(m):
    """As many are served as there are vectors; the rest is said once."""
    both = Both(m, entries=2048)
    guest = both.guest
    guest.enable_msix()
    for n in range(2047, -1, -2):
        guest.entry_write(n, 0, TO | n << 32, 8)
        guest.entry_write(n, 2, n, 8)
    served = m.IRQ_CPUS * (m.HOST_VECTOR_FREED - m.HOST_VECTOR_FIRST)
    assert m.irq_vectors() == served
    lines = [text for _, text in m.log_lines() if "no vector is left" in text]
    assert len(lines) == 1
    assert f"message {2047 - 2 * served};" in lines[0]
    # They all name the first CPU: the others' send theirs on.
    assert m.log_text().count("CPU 0 has no vector left") == 1
    for n in range(2047, 2047 - 2 * served, -2):
        assert both.raise_(n) == [(TO | n << 32, n)]
    assert both.raise_(2047 - 2 * served) == []     # the device keeps it
    assert guest.entry(2047)[0] == TO | 2047 << 32
    guest.enable_msix(False)
    assert both.nothing_is_left()


# --- Several CPUs ------------------------------------------------------------

SHAPES_OF_ONE = [{"multiple": 0, "maskable": False}, {"multiple": 2},
                 {"entries": 4}]


def start_messages(both, entries, multiple=0):
    """All at CPU 0, from 0x60 on."""
    if entries:
        for n in range(entries):
            both.guest.entry_write(n, 0, TO, 8)
            both.guest.entry_write(n, 2, 0x60 + n, 8)
        both.guest.enable_msix()
    else:
        both.guest.set_msi(TO, 0x60)
        both.guest.enable_msi(multiple=multiple)


def aim(both, n, cpu, masked):
    """As a guest's driver does it, or as it might: MSI-X masks, or not."""
    guest, to = both.guest, TO | cpu << 12
    if not guest.msix():
        guest.write(MSI + 4, 4, to)
        return
    if masked:
        guest.entry_write(n, 3, 1)
    guest.entry_write(n, 0, to)
    if masked:
        guest.entry_write(n, 3, 0)


def places(both, count):
    """The CPUs to which the device's messages go."""
    return [both.m.irq_message(SOURCE, *both.host.message(n)[:2]) >> 8
            for n in range(count)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("remapping", [False, True, "but not its own"])
@pytest.mark.parametrize("shape", SHAPES_OF_ONE)
def test_a_message_comes_to_the_cpu_that_it_names(m, shape, remapping, masked):
    """And so does each of a block; none of its vectors is left behind."""
    both = Both(m, remapping, pin=0, **shape)
    start_messages(both, shape.get("entries"), shape.get("multiple"))
    count = shape.get("entries") or 1 << shape["multiple"]
    assert places(both, count) == [0] * count
    for cpu in (3, 1, 1, 2, 0, 2):
        m.irq_be((cpu + 1) % 4)
        for n in range(count):
            aim(both, n, cpu, masked)
        assert places(both, count) == [cpu] * count
        both.host.land()
        assert m.irq_vectors() == count
        for n in range(count):
            assert both.raise_(n) == [(TO | cpu << 12, 0x60 + n)]
    both.guest.enable_msi(False)
    both.guest.enable_msix(False)
    assert both.nothing_is_left() and m.log_text() == ""


@pytest.mark.parametrize("shape", SHAPES_OF_ONE)
def test_a_message_on_its_way_when_the_guest_has_no_more_of_it(m, shape):
    """It is dropped, at whichever CPU; what comes next is the new one's."""
    both = Both(m, pin=0, **shape)
    start_messages(both, shape.get("entries"), shape.get("multiple"))
    both.host.raise_(0)
    aim(both, 0, 2, True)
    both.host.raise_(0)
    m.irq_be(1)
    both.guest.enable_msi(False)
    both.guest.enable_msix(False)
    assert both.settle() == [] and m.log_text() == ""
    start_messages(both, shape.get("entries"), shape.get("multiple"))
    assert both.settle() == []
    assert both.raise_(0) == [(TO, 0x60)]


def test_a_message_to_a_cpu_without_a_vcpu(m):
    """It comes to the first, as all do where there is one vCPU."""
    both = Both(m, pin=0, entries=4)
    for cpu in 1, 2, 3:
        m.irq_no_guest(cpu)
    start_messages(both, 4)
    for cpu in range(4):
        aim(both, cpu, cpu, True)
    assert places(both, 4) == [0] * 4
    assert m.irq_vectors() == 4


def test_a_cpu_without_a_vector_left(m):
    """Where a message is already, or another CPU that has one; said once."""
    both = Both(m, pin=0, entries=4)
    start_messages(both, 4)
    others = Both.take(m, 3, 1)         # of CPU 3: one is left
    for n in range(4):
        aim(both, n, 3, True)
    assert places(both, 4) == [3, 0, 0, 0]
    both.guest.enable_msix(False)
    both.guest.enable_msix()
    assert places(both, 4) == [3, 0, 0, 0]
    for n in range(4):
        assert both.raise_(n) == [(TO | 3 << 12, 0x60 + n)]
    assert m.log_text().count("CPU 3 has no vector left") == 1
    both.guest.enable_msix(False)
    both.host.land()
    assert m.irq_vectors() == others


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SHAPES_OF_ONE), st.sampled_from(
    [False, True, "but not its own"]), st.lists(st.one_of(
        st.tuples(st.just("raise"), st.integers(0, 3)),
        st.tuples(st.just("aim"), st.integers(0, 3), st.integers(0, 3),
                  st.booleans(), st.integers(0, 3)),
        st.tuples(st.just("land"), st.integers(0, 5)),
        st.tuples(st.just("look"))), max_size=50))
def test_affinity_changes_while_messages_arrive(m, shape, remapping, steps):
    """None is lost, none comes twice, and none where nobody waits for it."""
    m.reset()
    both = Both(m, remapping, pin=0, **shape)
    host = both.host
    count = shape.get("entries") or 1 << shape["multiple"]
    start_messages(both, shape.get("entries"), shape.get("multiple"))
    raised, seen = collections.Counter(), collections.Counter()
    for what, *args in steps:
        if what == "raise":
            raised[args[0] % count] += 1
            assert host.raise_(args[0] % count)
        elif what == "aim":
            m.irq_be(args[3])
            aim(both, args[0] % count, args[1], args[2])
            host.pump()
        elif what == "land":
            host.land(args[0])
        else:
            host.look()
    seen.update(data - 0x60 for _, data in both.settle() + both.settle())
    assert seen == raised and m.log_text() == ""
    assert m.irq_interrupts() == raised.total()
    assert m.irq_vectors() == count


# --- INTx ------------------------------------------------------------------

@pytest.mark.parametrize("remapping", [False, True])
def test_intx_comes_to_the_cpu_that_its_pin_names(m, remapping):
    """By a message of the host's; a guest's new start finds it at the first."""
    both = Both(m, remapping)
    for cpu in 2, 3, 1:
        m.irq_pin_write(LINE, 0x51 | LEVEL | 2 * cpu << 56)
        assert places(both, 1) == [cpu]
        assert both.raise_(0) == [(0, 0x51)]
        m.irq_eoi(0x51)
    m.irq_pin_write(LINE + 1, 0x52 | LEVEL)
    assert places(both, 1) == [1]
    m.irq_reset()
    assert places(both, 1) == [0] and both.nothing_is_left()


def test_intx_is_a_pulse_that_waits_for_the_eoi(m):
    both = Both(m)
    m.irq_pin_write(LINE, 0x51 | LEVEL)
    both.guest.write(4, 2, MASTER)
    assert both.raise_(0) == [(0, 0x51)]
    assert both.raise_(0) == []     # asserted again before the EOI
    m.irq_eoi(0x51)
    assert both.sent() == [(0, 0x51)]
    m.irq_eoi(0x51)
    assert both.sent() == []        # no more than there were
    assert both.nothing_is_left()


class Polled(Both):
    """A function with a pin, no messages, and no gsi=."""
    VECTOR = 0x51

    def __init__(self, m):
        super().__init__(m)
        m.irq_config[MSI] = 0xff        # no capability that is known
        assert m.irq_start(True, 1, -1) == 0
        self.guest.write(4, 2, MASTER)
        m.irq_pin_write(LINE, self.VECTOR | LEVEL)

    def drive(self, on):
        self.m.irq_config[6] = self.m.irq_config[6] & ~8 | on << 3

    def wait(self, us):
        """What arrives within that time."""
        end = self.m.tsc + HZ * us // 1_000_000
        while self.m.irq_due() <= end:
            self.m.tsc = max(self.m.irq_due(), self.m.tsc)
            self.m.irq_run(self.m.tsc)
        self.m.tsc = end
        return len(self.sent())


def test_a_polled_line(m):
    """Level: it comes within a millisecond, and again while it is up."""
    line = Polled(m)
    assert line.wait(5000) == 0
    line.drive(True)
    assert line.wait(1000) == 1 and line.wait(5000) == 0
    m.irq_eoi(line.VECTOR)              # a cause is left
    assert line.wait(0) == 1
    line.drive(False)
    m.irq_eoi(line.VECTOR)              # at once, not a millisecond later
    assert line.wait(5000) == 0
    line.drive(True)
    assert line.wait(1000) == 1
    assert m.irq_interrupts() == 2


def test_the_hosts_own_line_is_never_raised_by_it(m):
    line = Polled(m)
    assert line.host.read(4, 2) & INTX_DISABLE
    line.guest.write(4, 2, MASTER | INTX_DISABLE)
    line.guest.write(4, 2, MASTER)
    assert line.host.read(4, 2) & INTX_DISABLE


@pytest.mark.parametrize("command", [0, INTX_DISABLE])
@pytest.mark.parametrize("msi, gsi", [(True, -1), (False, -1), (True, 21)])
def test_each_life_finds_the_hosts_command_as_the_first(m, msi, gsi, command):
    """Whether its driver takes its line or not, and whatever firmware left."""
    both = Both(m, command=command)
    if not msi:
        m.irq_config[MSI] = 0xff
    assert m.irq_start(True, 1, gsi) == 0
    first = both.host.read(4, 2)
    # A line that is named is needed; one that is looked at must not rise.
    assert first & INTX_DISABLE == (
        0 if gsi >= 0 else command if msi else INTX_DISABLE)
    for guest in MASTER, MASTER | INTX_DISABLE, MASTER:
        both.guest.write(4, 2, guest)
        assert both.host.read(4, 2) == first | MASTER
    m.irq_reset()
    assert both.host.read(4, 2) == first


def test_nobody_looks_where_no_driver_is(m):
    """Before bus mastering, and after INTx was forbidden."""
    line = Polled(m)
    line.drive(True)
    assert line.wait(1000) == 1
    for command in 0, MASTER | INTX_DISABLE:
        line.guest.write(4, 2, command)
        m.irq_eoi(line.VECTOR)
        assert line.wait(2000) == 0
        assert m.irq_due() == m.VCLOCK_NEVER
        line.guest.write(4, 2, MASTER)
        assert line.wait(1000) == 1
    # It has gone.
    m.irq_config[6] = m.irq_config[7] = 0xff
    m.irq_eoi(line.VECTOR)
    assert line.wait(2000) == 0


class Line(Both):
    """A function with gsi=: the device drives the host's pin."""
    GSI, VECTOR = 21, 0x51

    def __init__(self, m, **shape):
        super().__init__(m, gsi=self.GSI, **shape)
        self.asserted = self.awaits_eoi = False
        self.arrived = 0

    def run(self):
        """Level: until the pin is masked, or the device has no more cause."""
        for _ in range(10):
            entry = self.m.irq_pins[self.GSI]
            if not self.asserted or entry >> 16 & 1:
                break
            assert entry & 0xa000 == 0xa000     # level, low
            self.m.irq_be(entry >> 57)
            self.m.host_irq_dispatch(entry & 0xff)
        else:
            pytest.fail("the host's pin storms")
        for sent in self.sent():
            assert sent == (0, self.VECTOR) and not self.awaits_eoi
            self.awaits_eoi = True
            self.arrived += 1

    def drive(self, on):
        self.asserted = on
        self.run()

    def eoi(self):
        self.awaits_eoi = False
        self.m.irq_eoi(self.VECTOR)
        self.run()

    def place(self):
        return (self.m.irq_pins[self.GSI] >> 56) // 2

    def is_open(self):
        return not self.m.irq_pins[self.GSI] >> 16 & 1

    def route(self, masked=False):
        self.m.irq_pin_write(LINE, self.VECTOR | LEVEL | masked << 16)
        self.run()


def test_a_level_line(m):
    line = Line(m)
    line.route()
    line.drive(True)
    assert line.arrived == 1 and not line.is_open()
    line.eoi()                      # a cause is left: it comes again
    assert line.arrived == 2 and not line.is_open()
    line.drive(False)
    line.eoi()
    assert line.arrived == 2 and line.is_open()
    assert m.irq_interrupts() == 2


def test_a_line_comes_to_the_cpu_that_its_pin_names(m):
    """Its vector stays, so that the IOAPIC knows the EOI of what was sent to
    the old one; the guest's next start finds it at the first."""
    line = Line(m)
    vector = m.irq_pins[line.GSI] & 0xff
    for cpu in 2, 1, 3:
        line.drive(True)
        line.VECTOR = 0x50 + cpu
        m.irq_pin_write(LINE, line.VECTOR | LEVEL | 2 * cpu << 56)
        line.run()
        assert line.place() == cpu and not line.is_open()
        line.drive(False)
        line.eoi()
        assert line.place() == cpu and line.is_open()
        assert m.irq_pins[line.GSI] & 0xff == vector
    # What one of them has not taken yet, as it waits for its SIPI, it takes:
    # without its EOI the IOAPIC sends no other.
    assert list(m.irq_kicked) == [True, True, True, False]
    m.irq_reset()
    assert line.place() == 0


def test_a_line_that_the_guest_has_masked(m):
    line = Line(m)
    line.drive(True)
    assert line.arrived == 0 and not line.is_open()
    line.route()
    assert line.arrived == 1
    line.drive(False)
    line.guest.enable_msi()         # the line is no longer used
    assert not line.is_open()
    line.eoi()
    assert line.arrived == 1 and not line.is_open()
    m.irq_reset()
    assert line.is_open()


def test_the_hosts_function_may_raise_its_line(m):
    """Whatever firmware left, and without bus mastering."""
    line = Line(m, command=INTX_DISABLE)
    line.guest.write(4, 2, INTX_DISABLE)
    assert not line.is_open()
    line.guest.write(4, 2, 0)
    assert not m.irq_config[5] & 4 and not m.irq_config[4] & MASTER
    assert line.is_open()


def test_eois_of_other_pins_change_nothing(m):
    line = Line(m)
    line.route()
    m.irq_pin_write(9, 0x61 | LEVEL)
    line.drive(True)
    m.irq_eoi(0x61)
    line.run()
    assert line.arrived == 1 and not line.is_open()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(
    ["raise", "lower", "eoi", "eoi", "mask", "open", "intx", "none", "msi",
     "reset"]), max_size=60))
def test_a_level_line_against_the_model(m, steps):
    """A line that is asserted and let through is always on its way."""
    m.reset()
    line = Line(m)
    masked = True
    line.run()
    for step in steps:
        if step in ("raise", "lower"):
            line.drive(step == "raise")
        elif step == "eoi":
            line.eoi()
        elif step in ("mask", "open"):
            masked = step == "mask"
            line.route(masked)
        elif step == "reset":
            m.irq_reset()
            masked, line.awaits_eoi = True, False
        else:
            line.guest.write(4, 2, INTX_DISABLE * (step == "none"))
            line.guest.enable_msi(step == "msi")
        line.run()
        if not line.guest.intx():
            assert not line.is_open()
        elif line.asserted:
            assert not line.is_open()
            assert masked or line.awaits_eoi
        elif not line.awaits_eoi and not masked:
            assert line.is_open()
    assert m.irq_vectors() == 1 + bool(line.guest.read(MSI + 2, 2) & 1)


# --- Storms ------------------------------------------------------------------



@pytest.mark.parametrize("shape", [
    {"maskable": True}, {"maskable": False}, {"entries": 4}])
def test_a_storm_is_held_at_the_device(m, shape):
    """For as long as was counted, said once; then it comes again."""
    both = Both(m, **shape)
    guest = both.guest
    m.tsc = 5 * HZ
    guest.set_msi(TO, 0x60)
    if both.host.entries:
        guest.entry_write(0, 0, TO, 8)
        guest.entry_write(0, 2, 0x60, 8)
        guest.enable_msix()
    else:
        guest.enable_msi()
    for _ in range(3):
        for _ in range(m.STORM_COUNT):
            m.tsc += 20
            both.host.raise_(0)
            both.host.land()
            m.lib.irq_sent_count = 0
            found = both.host.message(0)
            assert found and not found[2]
        assert both.raise_(0) == [(TO, 0x60)]   # one too many
        found = both.host.message(0)
        assert not found or found[2]
        assert m.irq_due() == m.tsc + HZ * m.STORM_MS // 1000
        # What the guest does meanwhile does not let it go.
        guest.write(4, 2, MASTER)
        if shape.get("maskable"):
            guest.mask_msi(0)
        both.host.raise_(0)
        assert both.settle() == []
        m.tsc = m.irq_due()
        m.irq_run(m.tsc)
        assert both.settle() == [(TO, 0x60)]    # it has waited
        assert both.raise_(0) == [(TO, 0x60)]
        m.tsc += HZ
    lines = [text for _, text in m.log_lines() if "a second" in text]
    assert lines == ["00:05.0: 50010001 interrupts a second: they are held "
                     "for 100 ms each time"]
    m.irq_reset()
    assert both.nothing_is_left()


def test_a_storm_ends_with_the_guest(m):
    both = Both(m)
    both.guest.enable_msi()
    for _ in range(m.STORM_COUNT + 1):
        both.host.raise_(0)
        both.host.land()
    assert m.irq_due() != m.VCLOCK_NEVER
    m.irq_reset()
    m.irq_run(m.irq_due())
    assert m.irq_due() == m.VCLOCK_NEVER
    both.guest.set_msi(TO, 0x60)
    both.guest.enable_msi()
    both.sent()
    assert both.raise_(0) == [(TO, 0x60)]


# --- Against the model -------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("raise"), st.integers(0, 31)),
    st.tuples(st.just("raise"), st.integers(0, 3)),
    st.tuples(st.just("msi"), st.booleans(), st.integers(0, 5)),
    st.tuples(st.just("msix"), st.booleans(), st.booleans()),
    st.tuples(st.just("address"), st.integers(0, 255), st.integers(0, 255)),
    st.tuples(st.just("mask"), st.sampled_from(
        [0, 0, 1, 2, 3, 0xf, 0xffffffff])),
    st.tuples(st.just("entry"), st.integers(0, 3), st.integers(0, 255),
              st.booleans()),
    st.tuples(st.just("entry mask"), st.integers(0, 3), st.booleans()),
    st.tuples(st.just("command"), st.booleans()),
    st.tuples(st.just("land")))
SHAPES = st.fixed_dictionaries({
    "remapping": st.booleans(), "wide": st.booleans(),
    "maskable": st.booleans(), "multiple": st.integers(0, 5),
    "entries": st.sampled_from([0, 1, 4, 32])})


def guest_step(both, step):
    """The guest's part of a step; data says in its low bits whose it is."""
    guest, host = both.guest, both.host
    what, *args = step
    if what == "msi":
        guest.enable_msi(*args)
    elif what == "msix" and host.entries:
        guest.enable_msix(*args)
    elif what == "address":
        guest.set_msi(TO | args[0] << 12, args[1] << 5)
    elif what == "mask" and host.maskable:
        guest.mask_msi(args[0])
    elif what == "command":
        guest.write(4, 2, MASTER | args[0] * INTX_DISABLE)
    elif args and args[0] < host.entries and what.startswith("entry"):
        n = args[0]
        if what == "entry":
            guest.entry_write(n, 0, TO | args[1] << 12)
            guest.entry_write(n, 2, args[1] << 5 | n)
        guest.entry_write(n, 3, args[-1])


@settings(max_examples=400, deadline=None)
@given(SHAPES, st.lists(STEPS, max_size=40))
def test_against_a_device_with_the_guests_registers(m, shape, steps):
    """At once, and just what that device would send."""
    m.reset()
    both = Both(m, **shape)
    guest, host = both.guest, both.host
    pending = collections.defaultdict(set)  # by whether MSI-X is on
    pulses = 0

    def expected():
        out, kept = [], pending[guest.msix()]
        for n in sorted(kept):
            found = guest.message(n)
            if found and not found[2]:
                out.append(found[:2])
                kept.discard(n)
        return out
    m.irq_pin_write(LINE, 0x51)     # an edge for each pulse
    for step in steps:
        want = []
        if step[0] == "raise":
            n = step[1]
            if guest.msix() and n >= host.entries:
                continue
            if guest.intx():
                n = 0
            if (found := guest.message(n)):
                pending[guest.msix()].add(n)
            elif guest.intx():
                want.append((0, 0x51))
            want += expected()
            host.raise_(n)
        else:
            guest_step(both, step)
            want = expected()
        got = both.settle()
        if guest.intx():
            # Its MSI was pending, and is INTx's by now.
            pulses = sum(1 for n in pending[False] if n == 0)
            assert got[len(want):] in ([], [(0, 0x51)] * pulses)
            if got[len(want):]:
                pending[False].discard(0)
            got = got[:len(want)]
        assert sorted(got) == sorted(want)
        for n in range(32):     # masked at the device as by the guest
            here, there = guest.message(n), host.message(n)
            if here and (host.maskable or guest.msix()):
                assert there[2] == here[2]
        if guest.msix() or host.maskable and guest.read(MSI + 2, 2) & 1:
            count = host.entries if guest.msix() else 32
            assert {n for n in range(count) if guest.pending(n)} >= \
                {n for n in pending[guest.msix()] if n < count}
    m.irq_reset()
    assert both.nothing_is_left()


@settings(max_examples=600, deadline=None)
@given(SHAPES, st.lists(STEPS, max_size=40))
def test_messages_on_their_way(m, shape, steps):
    """Whatever the guest does meanwhile: while its mode stays, none is lost,
    and none arrives masked."""
    m.reset()
    both = Both(m, **shape)
    guest, host = both.guest, both.host
    owed = set()
    for n in range(host.entries):
        guest.entry_write(n, 2, n)
        guest.entry_write(n, 3, 0)
    if host.entries:
        guest.enable_msix()
    else:
        guest.enable_msi(multiple=2)

    def mode():
        control = guest.read(MSI + 2, 2)
        if guest.msix():
            return "MSI-X"
        return control & 0x71 if control & 1 else None
    before = mode()
    for step in steps:
        if step[0] == "raise":
            if mode() and guest.message(step[1]) and \
                    (not guest.msix() or step[1] < host.entries) and \
                    host.raise_(step[1]):
                owed.add(step[1])
        elif step[0] == "land":
            host.pump()
            host.land()
        else:
            guest_step(both, step)
        if mode() != before:
            host.land()
            both.sent()
            owed.clear()
            before = mode()
            continue
        for _, data in both.sent() if mode() else []:
            n = data & 31
            assert not guest.message(n)[2]
            owed.discard(n)
    for n in sorted(owed):
        if guest.message(n)[2]:
            host.land()
            assert guest.pending(n)
    for _, data in both.settle():
        owed.discard(data & 31)
    assert all(guest.message(n)[2] for n in owed)
    if guest.msix():
        for n in range(host.entries):
            guest.entry_write(n, 3, 0)
        guest.enable_msix()
    elif host.maskable:
        guest.mask_msi(0)
    for _, data in both.settle() if mode() else []:
        owed.discard(data & 31)
    assert not owed
    m.irq_reset()
    assert both.nothing_is_left()
