# SPDX-License-Identifier: MIT
"""The VT-d driver against a model of units with the worst permitted habits
(vtdmodel.py): take-over, order, invalidation, faults, interrupts."""

import itertools
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vtdmodel as model
from vtdmodel import (CFI, IRE, QIE, SRTP, TE, Fault, Machine, cap, drhd, ecap,
                      rmrr, scope, table)

PAGE, MIB, GIB = 4096, 1 << 20, 1 << 30
EDU, NIC, DISPLAY, HOST = 0x28, 0x30, 0x10, 0
R, W, RW = 1, 2, 3
FUNCTIONS = {HOST: {"class": 0x600}, DISPLAY: {"class": 0x300},
             EDU: {"class": 0xff}, NIC: {"class": 0x200}}
TABLE = table([drhd(Machine.BASE, scope([(0x1f, 7)], kind=3, bus=0xf0,
                                        ident=2), include_all=True)])


@pytest.fixture(scope="module")
def m():
    return model.build()


def machine(m, caps=None, ecaps=None, dmar=TABLE, functions=None):
    return Machine(m, [(cap() if caps is None else caps,
                        ecap() if ecaps is None else ecaps)],
                   functions or FUNCTIONS, dmar)


def can(unit, bdf, gpa, write=False):
    """The host address, or the reason of the fault."""
    try:
        return unit.dma(bdf, gpa, write)
    except Fault as fault:
        return -fault.reason


# --- Taking over ---------------------------------------------------------

def test_cold_start_blocks_everything(m):
    x = machine(m)
    assert x.init() == 0
    assert x.units[0].log == [] and not m.lib.fake_config_writes, \
        "vtd_init() may change nothing"
    assert m.vtd_start(x.vtd) == 0
    x.check()
    unit = x.units[0]
    assert unit.status & (TE | QIE | IRE | CFI) == TE | QIE | IRE
    assert all(can(unit, b, a) == -2 for b in range(0, 0x200, 8)
               for a in (0, PAGE, 0xfee00000, GIB))
    assert not any(x.master(b) for b in FUNCTIONS)
    log = unit.log
    assert log.index("qie") < log.index("srtp") < log.index("context") \
        < log.index("iotlb") < log.index("te") < log.index("ire")


def test_all_queues_are_on_before_one_is_asked(m):
    """On X58 an invalidation waits for ever while another unit's is off."""
    x, order = igd(m), []
    for unit in x.units:
        def watch(low, high, unit=unit, go_on=unit._descriptor):
            assert all(u.status & QIE for u in x.units)
            order.append(unit)
            go_on(low, high)
        unit._descriptor = watch
    x.start()
    assert {id(unit) for unit in order} == {id(unit) for unit in x.units}


def test_bus_mastering_goes_before_anything_else(m):
    bridge = 0x40
    functions = dict(FUNCTIONS)
    functions[bridge] = {"class": 0x604, "header_type": 1, "secondary_bus": 1}
    x = machine(m, functions=functions)
    x.config.display = DISPLAY
    x.init()
    m.clear_events()
    m.vtd_start(x.vtd)
    events = m.events()
    last_config = max(i for i, e in enumerate(events) if e.kind == "other")
    first_mmio = min(i for i, e in enumerate(events) if e.kind == "write")
    assert last_config < first_mmio
    assert x.master(DISPLAY) and x.master(bridge)
    assert not any(x.master(b) for b in (HOST, EDU, NIC))


@pytest.mark.parametrize("eim_before, eim", itertools.product((0, 1), (0, 1)))
def test_taken_over_from_a_previous_owner(m, eim_before, eim):
    """Everything was left on: it is swapped under way, TE never cleared."""
    x = machine(m, cap(pmr=3), ecap(eim=True))
    x.config.x2apic = eim
    unit = x.units[0]
    unit.status = TE | QIE | IRE | CFI | SRTP
    unit.regs.update({0x20: 0x7000000, 0x64: 1 << 31 | 1,
                      0xb8: 0x7001000 | eim_before << 11 | 7})
    leave_queue(x, IOTLB)
    unit.root, unit.irta = 0x7000000, unit.regs[0xb8]
    unit.context_cache[EDU] = model.walk.Context(0, 4, 5, False)
    unit.iotlb[5, 0] = 0x123000, "rw-"
    unit.irt_cache[0] = model.walk.Interrupt(77, 0, False, EDU, 1, False, 0)
    assert can(unit, EDU, 0) == 0x123000
    x.start()
    assert can(unit, EDU, 0) == -2
    assert "te" not in unit.log and "-te" not in unit.log
    assert unit.status & (TE | QIE | IRE | CFI) == TE | QIE | IRE
    assert unit.regs[0x64] == 0
    assert unit.irta & 1 << 11 == eim << 11
    with pytest.raises(Fault, match="0x22"):
        unit.interrupt(EDU, 0xfee00010)


def test_protected_memory_is_given_up_only_behind_translation(m):
    x = machine(m, cap(pmr=1))
    x.units[0].regs[0x64] = 1 << 31 | 1
    x.start()
    log = x.units[0].log
    assert log.index("te") < log.index("pmen")
    assert x.units[0].regs[0x64] == 0


def test_scalable_mode_left_on_is_refused(m):
    x = machine(m)
    x.units[0].status, x.units[0].regs[0x20] = TE, 0x7000000 | 1 << 10
    assert x.init() == -m.ENOTSUP
    assert "scalable" in m.log_text()
    assert x.units[0].log == [] and not m.lib.fake_config_writes


@pytest.mark.parametrize("warm", [False, True])
def test_a_unit_that_was_left_to_abort_all(m, warm):
    """11.4.5: that mode changes while translation is off. Its root address
    means nothing."""
    x = machine(m, cap(pmr=3))
    unit = x.units[0]
    unit.status, unit.regs[0x20] = TE * warm, 0x7000000 | 3 << 10
    unit.regs[0x64] = 1 << 31 | 1
    x.start()
    assert m.lib.fake_kept_count == 0
    assert can(unit, EDU, 0) == -2 and unit.status & TE
    log = unit.log
    assert ("-te" in log) == warm
    assert log.index("srtp") < log.index("te") < log.index("pmen")
    if warm:
        assert log.index("-te") < log.index("srtp")


@pytest.mark.parametrize("what, wanted", [
    (0, TE | IRE | QIE), (IRE, TE | QIE), (IRE | TE, QIE)])
def test_what_is_left_on_where_vtd_is_not_used(m, what, wanted):
    """Said first; then off with what would be in the way of interrupts, or
    of devices, too."""
    x = machine(m, cap(pmr=3))
    unit = x.units[0]
    unit.status, unit.regs[0x64] = TE | IRE | QIE, 1 << 31 | 1
    m.vtd_unused(x.vtd, x.acpi, 0)
    assert unit.log == []
    assert "left on: translation queue interrupt-remapping protected-memory" \
        in m.log_text()
    if what:
        m.vtd_unused(x.vtd, x.acpi, what)
    assert unit.status == wanted
    assert unit.regs[0x64] == (0 if what & TE else 1 << 31 | 1)


def test_a_table_that_is_not_used_may_be_bad(m):
    """Units that do not answer, and a table that cannot be."""
    for caps, dmar in ((0, TABLE), (2**64 - 1, TABLE),
                       (cap(), table([drhd(Machine.BASE + 8)]))):
        x = machine(m, caps, dmar=dmar)
        x.units[0].status = TE | IRE
        m.vtd_unused(x.vtd, x.acpi, 0)
        m.vtd_unused(x.vtd, x.acpi, TE | IRE)
        assert x.units[0].log == []


@pytest.mark.parametrize("ecaps, flags", [(ecap(ir=False), 1), (ecap(), 0)])
def test_interrupt_remapping_that_was_left_on_ends_where_it_is_not_used(
        m, ecaps, flags):
    x = machine(m, ecaps=ecaps, dmar=table(
        [drhd(Machine.BASE, include_all=True)], flags=flags))
    unit = x.units[0]
    unit.status, unit.irta = IRE, 0x7001007
    x.start()
    msi = m.vtd_msi_plain(0x61, 3)
    assert unit.interrupt(EDU, msi.address, msi.data) == (0x61, 3)


def test_tables_of_a_translation_that_was_left_on_are_kept(m):
    """Root and context tables, until Monocle's own are in force."""
    root, contexts = (m.ARENA_BASE + (m.ARENA_PAGES - n) * PAGE
                      for n in (8, 7))
    x = machine(m)
    entries = m.ffi.cast("uint64_t *", m.phys_to_virt(root))
    for bus in range(256):
        entries[2 * bus] = (contexts | 1) if bus in (0, 3) else 0xfff0
    x.units[0].regs[0x20] = root
    assert x.init() == 0 and m.lib.fake_kept_count == 0, "it is off"
    x.units[0].status = TE
    assert x.init() == 0
    assert list(m.lib.fake_kept[0:m.lib.fake_kept_count]) == [
        root, contexts, contexts]
    # One that cannot be read
    x.units[0].regs[0x20] = 0x3ffffffff000
    assert x.init() == 0


def test_what_was_left_on_is_said(m):
    x = machine(m, cap(pmr=3), functions=FUNCTIONS)
    unit = x.units[0]
    assert x.init() == 0
    m.vtd_log(x.vtd)
    raw = f"CAP {unit.cap:#x}, ECAP {unit.ecap:#x}, GSTS "
    assert m.log_text().count(raw + "0x0; left on: nothing\n") == 1
    unit.status, unit.regs[0x64] = TE | QIE | IRE | SRTP, 1 << 31 | 1
    assert x.init() == 0
    m.vtd_log(x.vtd)
    assert raw + f"{unit.status:#x}; left on: translation queue " \
        "interrupt-remapping protected-memory" in m.log_text()


WAIT, IOTLB, BAD = 5, 2, 15     # types of descriptors; 0: none yet
DW = 1 << 11                    # descriptors of 32 bytes


def leave_queue(x, last, head=0, tail=None, iqa=0):
    """A previous owner's queue, on; its memory: ff, but for what is pending.
    Its address."""
    unit, m = x.units[0], x.m
    queue = m.ARENA_BASE + (m.ARENA_PAGES - 8) * PAGE
    m.ffi.memmove(m.phys_to_virt(queue), b"\xff" * 8 * PAGE, 8 * PAGE)
    tail = head if tail is None else tail
    unit.status |= QIE
    unit.iqa = queue | iqa
    unit.regs.update({0x88: tail, 0x90: unit.iqa})
    unit.head, unit.last = head, last
    if last == BAD:
        unit.regs[0x34] |= 0x10
    return queue


def changed(x, queue):
    """Offsets of the previous owner's memory that are not as it was."""
    data = x.memory(queue, 8 * PAGE)
    return [at for at, byte in enumerate(data) if byte != 0xff]


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("iqa, last_slot", [
    (0, PAGE - 16), (2, 4 * PAGE - 16), (DW, PAGE - 32)])
@pytest.mark.parametrize("last", [0, WAIT, IOTLB, BAD])
def test_queue_of_a_previous_owner(m, last, iqa, last_slot, goes_on):
    """It can be switched off only after a wait descriptor, which is put where
    the unit reads next: whatever was last, at the ring's end too, and in the
    place of the descriptor that has stopped it."""
    step = 32 if iqa == DW else 16
    for head in (0, 0x40, last_slot):
        x = machine(m)
        x.units[0].goes_on = goes_on
        queue = leave_queue(x, last, head, iqa=iqa, tail=(
            (head + 3 * step) % (last_slot + step) if last == BAD else head))
        x.start()
        assert x.units[0].log.index("wait") < x.units[0].log.index("-qie")
        assert x.units[0].status & QIE
        assert x.units[0].regs[0x90] not in (0, queue | iqa)
        assert set(changed(x, queue)) <= set(range(head, head + step))


def test_queue_of_a_previous_owner_drains_first(m):
    x = machine(m)
    unit = x.units[0]
    queue = leave_queue(x, WAIT, 0x40, 0x80)
    read = unit.read

    def slow(at, size):
        if at == 0x80 and unit.head != 0x80 and unit.status & QIE:
            assert not changed(x, queue), "overtaken"
            unit.head += 0x10
        return read(at, size)
    unit.read = slow
    x.start()
    assert set(changed(x, queue)) <= set(range(0x80, 0x90))


def test_queue_of_a_previous_owner_is_slow(m):
    """The command to switch it off waits for the wait descriptor's end."""
    x = machine(m)
    unit, looks = x.units[0], []
    leave_queue(x, IOTLB)
    unit.dead.add("queue")
    read = unit.read

    def slow(at, size):
        if at == 0x34 and unit.regs[0x88] != unit.head:
            looks.append(at)
            if len(looks) == 3:
                unit.dead.discard("queue")
                unit._run_queue()
        return read(at, size)
    unit.read = slow
    x.start()
    assert unit.log.index("wait") < unit.log.index("-qie")


@pytest.mark.parametrize("last, taken", [
    (WAIT, True), (IOTLB, True), (IOTLB, False)])
def test_queue_out_of_reach(m, last, taken):
    """Monocle lies on it, or it is where nothing is: not touched; one line,
    and an error where the unit insists."""
    x = machine(m)
    queue = leave_queue(x, last)
    m.lib.fake_taken = taken
    if not taken:
        x.units[0].regs[0x90] = x.units[0].iqa = 0x3ffffffff000
    assert x.init() == 0
    err = m.vtd_start(x.vtd)
    assert err == (0 if last == WAIT else -m.ETIMEDOUT)
    assert not changed(x, queue)
    lines = [t for _, t in m.log_lines()]
    assert sum("queue that was left on" in t for t in lines) == taken
    assert sum("register 0x1c stays" in t for t in lines) == bool(err)


@pytest.mark.parametrize("head", [8, PAGE, 0x7fff0])
def test_head_that_cannot_be(m, head):
    x = machine(m)
    queue = leave_queue(x, IOTLB, head)
    assert x.init() == 0
    assert m.vtd_start(x.vtd) == -m.ETIMEDOUT
    assert not changed(x, queue)


def test_queue_of_a_previous_owner_that_hangs(m):
    """Two waits, then what the unit says to the command decides."""
    x = machine(m)
    queue = leave_queue(x, WAIT, 0x40, 0x80)
    x.units[0].dead.add("queue")
    assert x.init() == 0
    assert m.vtd_start(x.vtd) == -m.ETIMEDOUT
    assert m.tsc <= 3 * 5 * 10**9 and not changed(x, queue)
    assert "register 0x80 stays 0x40" in m.log_text()


@pytest.mark.parametrize("what", [TE, SRTP, QIE, IRE, model.SIRTP])
def test_no_answer_ends_in_a_bounded_time(m, what):
    x = machine(m)
    x.units[0].dead.add(what)
    assert x.init() == 0
    assert m.vtd_start(x.vtd) == -m.ETIMEDOUT
    assert m.tsc <= 2 * 5 * 10**9
    assert "does not do as it is told" in m.log_text()


@pytest.mark.parametrize("caps, ecaps, error, word", [
    (0, 0, "ENODEV", "does not answer"),
    (2**64 - 1, 2**64 - 1, "ENODEV", "does not answer"),
    (cap() & ~(0x1f << 8), None, "ENOTSUP", "second-level")])
def test_unusable_unit(m, caps, ecaps, error, word):
    x = machine(m, caps, ecaps)
    assert x.init() == -getattr(m, error)
    assert word in m.log_text()
    assert not m.lib.fake_config_writes and x.units[0].log == []


def test_no_table(m):
    x = machine(m)
    m.lib.fake_dmar = m.NULL
    assert x.init() == -m.ENODEV
    assert "switch VT-d on" in m.log_text()


def test_no_memory_at_any_point(m):
    """Each allocation fails in turn: an error, never a crash."""
    outcomes = set()
    for pages in range(20):
        x = machine(m)
        m.lib.fake_pages_left = pages
        err = x.init() or m.vtd_start(x.vtd)
        if not err:
            regions = x.regions([(0, GIB, PAGE, RW), (GIB, 0, GIB, RW)])
            slot = m.new("struct vtd_domain **")
            err = m.vtd_domain_create(x.vtd, regions, slot) or \
                m.vtd_assign(x.vtd, slot[0], EDU)
        outcomes.add(err)
    assert outcomes == {0, -m.ENOMEM}


def test_capabilities_in_words(m):
    x = machine(m, cap((3, 4), cm=True, rwbf=True, records=4, pmr=1),
                ecap(eim=True)).start()
    m.vtd_log(x.vtd)
    text = m.log_text()
    for words in ("4-level tables, 48 bits", "4 fault records", "2 MiB pages",
                  "1 GiB pages", "caching mode", "write-buffer flush",
                  "protected memory", "invalidation queue",
                  "interrupt remapping", "x2APIC", "65536 domains"):
        assert words in text, text
    assert "coherent" not in text


# --- Translation ---------------------------------------------------------

VARIANTS = [
    (cap(), ecap()), (cap((3,)), ecap(coherent=True)),
    (cap((5,)), ecap()), (cap(cm=True), ecap()),
    (cap((3, 4), rwbf=True), ecap()),
    (cap(rwbf=True, cm=True, large=1), ecap(coherent=True)),
    (cap(large=0, psi=False), ecap()), (cap(mamv=2), ecap(qi=False, ir=False)),
    (cap(cm=True, drain=0), ecap(qi=False, ir=False)),
]


@pytest.mark.parametrize("caps, ecaps", VARIANTS)
def test_map_use_unmap(m, caps, ecaps):
    x = machine(m, caps, ecaps).start()
    d = x.domain([(0, 64 * MIB, 4 * MIB, RW), (GIB, 5 * GIB, GIB, R),
                  (8 * MIB, 0x7777000, PAGE, W)])
    unit = x.units[0]
    assert can(unit, EDU, 0) == -2
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    for gpa, hpa in ((0, 64 * MIB), (4 * MIB - 1, 68 * MIB - 1)):
        assert can(unit, EDU, gpa) == can(unit, EDU, gpa, True) == hpa
    assert can(unit, EDU, GIB + 12345) == 5 * GIB + 12345
    assert can(unit, EDU, GIB, True) == -5
    assert can(unit, EDU, 8 * MIB, True) == 0x7777000
    assert can(unit, EDU, 8 * MIB) == -6
    assert can(unit, EDU, 4 * MIB) == -6 and can(unit, NIC, 0) == -2
    # A hole in a large page, of a size that is no power of two
    for page in range(-1, 4):
        assert can(unit, EDU, MIB + page * PAGE) == 65 * MIB + page * PAGE
    assert m.vtd_map(x.vtd, d, MIB, 0, 3 * PAGE, 0) == 0
    for page in range(-1, 4):
        gpa = MIB + page * PAGE
        assert can(unit, EDU, gpa) == (
            -6 if 0 <= page < 3 else 64 * MIB + gpa)
    # The rest of that page, which nobody used before
    assert can(unit, EDU, 3 * MIB // 2) == 65 * MIB + MIB // 2
    # What was absent becomes present
    assert m.vtd_map(x.vtd, d, MIB, 9 * GIB, PAGE, RW) == 0
    assert can(unit, EDU, MIB, True) == 9 * GIB
    assert m.vtd_release(x.vtd, EDU) == 0
    assert can(unit, EDU, 0) == -2
    x.check()


def test_an_unmap_that_fails_half_way(m):
    """For want of a table to split a large page: what it has taken out is
    out for the device, too."""
    x = machine(m, caps=cap(large=1)).start()
    d = x.domain([(0, GIB, 4 * MIB, RW)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    for gpa in (0, 2 * MIB):
        assert can(x.units[0], EDU, gpa) == GIB + gpa
    m.lib.fake_pages_left = 0
    assert m.vtd_map(x.vtd, d, 0, 0, 2 * MIB + PAGE, 0) == -m.ENOMEM
    assert can(x.units[0], EDU, 0) == -6
    assert can(x.units[0], EDU, 2 * MIB) == GIB + 2 * MIB


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(VARIANTS), st.lists(st.tuples(
    st.booleans(), st.integers(0, 3000), st.integers(1, 1500),
    st.integers(1, 3), st.integers(0, 2000)), max_size=12),
    st.lists(st.integers(0, 4600), min_size=8, max_size=8))
def test_use_between_any_maps_and_unmaps(m, variant, steps, probes):
    """What devices reach is the model's map at every moment, with all that
    they used before still in the unit's caches."""
    x = machine(m, *variant).start()
    d = x.domain([])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    pages = {}

    def look(wanted):
        for page in wanted:
            hpa, rights = pages.get(page, (0, 0))
            got = can(x.units[0], EDU, page * PAGE)
            assert got == (hpa if rights & R else -6), hex(page)
            got = can(x.units[0], EDU, page * PAGE, True)
            assert got == (hpa if rights & W else -5), hex(page)
    for unmap, first, count, rights, shift in steps:
        look(probes)
        hpa = (first + shift * 512) * PAGE
        span = range(first, first + count)
        if unmap:
            assert m.vtd_map(x.vtd, d, first * PAGE, 0, count * PAGE, 0) == 0
            for page in span:
                pages.pop(page, None)
        else:
            err = m.vtd_map(x.vtd, d, first * PAGE, hpa, count * PAGE, rights)
            clash = any(p in pages for p in span)
            assert err == (-m.EEXIST if clash else 0)
            if not clash:
                pages.update((p, (hpa + (p - first) * PAGE, rights))
                             for p in span)
        look([*probes, first, first + count - 1, first + count])
    x.check()


def test_the_interrupt_range_is_never_mapped(m):
    x = machine(m).start()
    d = x.domain([(0xfe000000, 0xfe000000, 64 * MIB, RW)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    for gpa, hpa in ((0xfedff000, 0xfedff000), (0xfee00000, -6),
                     (0xfeeff000, -6), (0xfef00000, 0xfef00000)):
        assert can(x.units[0], EDU, gpa) == hpa


def test_holes_and_regions_without_dma_rights(m):
    x = machine(m).start()
    d = x.domain([(0, GIB, PAGE, RW, m.REGION_HOLE),
                  (PAGE, GIB, PAGE, 0), (2 * PAGE, GIB, PAGE, m.REGION_X),
                  (3 * PAGE, GIB, PAGE, m.REGION_RX)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    assert [can(x.units[0], EDU, n * PAGE) for n in range(4)] == \
        [-6, -6, -6, GIB]


def test_domain_is_freed_whole(m):
    x = machine(m).start()
    used = m.lib.fake_pages_used
    d = x.domain([(0x1000, 0x5000, 100 * MIB, RW), (GIB, GIB, GIB, R)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    assert m.vtd_domain_destroy(d) == -m.EBUSY
    assert m.vtd_release(x.vtd, EDU) == 0
    assert m.vtd_release(x.vtd, EDU) == -m.ENODEV
    assert m.vtd_domain_destroy(d) == 0
    # The bus's context table stays
    assert m.lib.fake_pages_used == used + 1
    domains = [x.domain([]) for _ in range(m.VTD_DOMAINS_MAX)]
    slot = m.new("struct vtd_domain **")
    assert m.vtd_domain_create(x.vtd, x.regions([]), slot) == -m.ENOSPC
    assert len({d.id for d in domains}) == len(domains)
    assert all(d.id for d in domains)


def test_two_domains(m):
    x = machine(m).start()
    a, b = x.domain([(0, GIB, PAGE, RW)]), x.domain([(0, 2 * GIB, PAGE, RW)])
    assert m.vtd_assign(x.vtd, a, EDU) == m.vtd_assign(x.vtd, b, NIC) == 0
    assert m.vtd_assign(x.vtd, b, EDU) == -m.EBUSY
    assert can(x.units[0], EDU, 0) == GIB
    assert can(x.units[0], NIC, 0) == 2 * GIB
    assert m.vtd_assign(x.vtd, a, 0x99) == -m.ENODEV


# --- Several units, bridges, RMRRs ---------------------------------------

@pytest.mark.parametrize("coherent", [0, 1])
def test_units_of_different_widths(m, coherent):
    """A domain of functions behind a 3-level and a 4-level unit, of which
    one snoops; each unit knows its own functions only."""
    dmar = table([drhd(Machine.BASE, scope([(5, 0)])),
                  drhd(Machine.BASE + 0x1000, include_all=True)], width=46)
    x = Machine(m, [(cap((3 + n,)), ecap(coherent=n == coherent))
                    for n in range(2)], FUNCTIONS, dmar).start()
    d = x.domain([(0, 2 * GIB, GIB, RW), (4 * GIB, 0, MIB, RW)])
    for bdf in (EDU, NIC):
        assert m.vtd_assign(x.vtd, d, bdf) == 0
    for own, other, bdf in ((0, 1, EDU), (1, 0, NIC)):
        assert can(x.units[own], bdf, 5) == 2 * GIB + 5
        assert can(x.units[own], bdf, 4 * GIB) == 0
        assert can(x.units[other], bdf, 5) == -2
    assert m.vtd_map(x.vtd, d, 0, 0, PAGE, 0) == 0
    assert can(x.units[0], EDU, 0) == can(x.units[1], NIC, 0) == -6
    # To the end of what the DMAR table says of host addresses
    top = 1 << 46
    assert m.vtd_map(x.vtd, d, 8 * GIB, top - PAGE, PAGE, RW) == 0
    assert can(x.units[1], NIC, 8 * GIB) == top - PAGE
    assert m.vtd_map(x.vtd, d, 9 * GIB, top, PAGE, RW) == -m.ERANGE
    # Beyond what the narrower one can: for neither
    assert m.vtd_map(x.vtd, d, 1 << 39, 0, PAGE, RW) == -m.ERANGE
    x.check()


def bridged(kind):
    """00:01.0 is a bridge to bus 1 with 01:00.0 and 01:01.0 behind it."""
    express = {0x34: 0x40, 0x42: kind << 4} if kind is not None else {}
    return {HOST: {}, 0x08: {"header_type": 1, "secondary_bus": 1,
                             "config": express}, 0x100: {}, 0x108: {}}


@pytest.mark.parametrize("kind, alias", [
    (4, None),      # root port: requests keep their ID
    (7, 0x100),     # PCI Express to PCI
    (None, 0x08)])  # conventional
def test_requester_behind_a_bridge(m, kind, alias):
    x = machine(m, functions=bridged(kind)).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    assert m.vtd_assign(x.vtd, d, 0x108) == 0
    assert can(x.units[0], 0x108, 0) == GIB
    if alias is not None:
        assert can(x.units[0], alias, 0) == GIB
        # Its neighbour shares the ID, so it cannot go elsewhere.
        other = x.domain([])
        assert m.vtd_assign(x.vtd, other, 0x100) == -m.EBUSY
        assert m.vtd_assign(x.vtd, d, 0x100) == 0
        assert can(x.units[0], 0x100, 0) == GIB
    index = m.vtd_irq_alloc(x.vtd, 0x108, 1)
    assert m.vtd_irq_set(x.vtd, index, 0x55, 0, False) == 0
    msi = m.vtd_irq_msi(index, 1)
    source = 0x108 if alias is None else alias
    assert x.units[0].interrupt(source, msi.address, msi.data) == (0x55, 0)
    for bdf in (0x100, 0x108) if alias else (0x108,):
        assert m.vtd_release(x.vtd, bdf) == 0
    for bdf in (0x108, 0x100, 0x08):
        assert can(x.units[0], bdf, 0) == -2


@pytest.mark.parametrize("ident", [0x10801b21, 0x811310e3, 0x88931283,
                                   0x244e8086])
def test_a_bridge_that_hides_that_it_is_pci_express(m, ident):
    """Behind a root port; on a root bus it is what it says."""
    name = dict(enumerate(ident.to_bytes(4, "little")))
    x = machine(m, functions={HOST: {}, 0x08: {
        "header_type": 1, "secondary_bus": 1, "config": {0x34: 0x40, 0x42: 0x40}
    }, 0xf0: {"header_type": 1, "secondary_bus": 3, "config": name},
        0x100: {"header_type": 1, "secondary_bus": 2, "config": name},
        0x208: {}, 0x308: {}}).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    for bdf, alias in ((0x208, 0x200), (0x308, 0xf0)):
        assert m.vtd_assign(x.vtd, d, bdf) == 0
        assert can(x.units[0], alias, 0) == GIB
    assert can(x.units[0], 0x100, 0) == can(x.units[0], 0x300, 0) == -2


@pytest.mark.parametrize("ident", [0xe8321180, 0xe4761180])
@pytest.mark.parametrize("order", [(0x101, 0x100), (0x100, 0x101), (0x101,)])
def test_requests_in_the_name_of_function_0(m, ident, order):
    """Ricoh's card reader and FireWire."""
    x = machine(m, functions={HOST: {}, 0x100: {}, 0x101: {
        "config": dict(enumerate(ident.to_bytes(4, "little")))}}).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    for bdf in order:
        assert m.vtd_assign(x.vtd, d, bdf) == 0
    assert can(x.units[0], 0x100, 0) == GIB
    assert can(x.units[0], 0x102, 0) == -2
    index = m.vtd_irq_alloc(x.vtd, 0x101, 1)
    assert m.vtd_irq_set(x.vtd, index, 0x55, 0, False) == 0
    assert x.units[0].interrupt(0x100, m.vtd_irq_msi(index, 1).address) == (
        0x55, 0)


@pytest.mark.parametrize("order", [(0x100, 0x101), (0x101, 0x100), (0x100,)])
def test_requests_in_the_name_of_function_1(m, order):
    """Marvell's SATA: with a function 1 that is given, and without one."""
    x = machine(m, functions={
        HOST: {}, 0x100: {"config": dict(enumerate(b"\x4b\x1b\x30\x91"))},
        **{bdf: {} for bdf in order[:2] if bdf != 0x100}, 0x108: {}}).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    for bdf in order:
        assert m.vtd_assign(x.vtd, d, bdf) == 0
    for bdf in (0x100, 0x101):
        assert can(x.units[0], bdf, 0) == GIB
    assert m.vtd_assign(x.vtd, x.domain([]), 0x100) == -m.EBUSY
    index = m.vtd_irq_alloc(x.vtd, 0x100, 1)
    assert m.vtd_irq_set(x.vtd, index, 0x55, 0, False) == 0
    msi = m.vtd_irq_msi(index, 1)
    for bdf in (0x100, 0x101):
        assert x.units[0].interrupt(bdf, msi.address) == (0x55, 0)
    with pytest.raises(model.Fault):
        x.units[0].interrupt(0x108, msi.address)


DSM = 0x7c000000
IGD_TABLE = table([drhd(Machine.BASE, scope([(2, 0)])),
                   drhd(Machine.BASE + 0x1000, include_all=True),
                   rmrr(0x70000000, 0x7000ffff, scope([(0x14, 0)])),
                   rmrr(DSM, DSM + 4 * MIB - 1, scope([(2, 0)]))])


def igd(m, **caps):
    x = Machine(m, [(cap((3,), **caps), ecap())] * 2, FUNCTIONS, IGD_TABLE)
    x.config.display = DISPLAY
    return x


@pytest.mark.parametrize("warm", [False, True])
def test_the_firmwares_picture_keeps_its_memory(m, warm):
    """warm: a previous owner left translation on, so that the new tables are
    in force from one command to the next; the unit buffers writes."""
    x = igd(m, rwbf=warm)
    unit = x.units[0]
    unit.status, unit.root = TE * warm, None
    lost = []
    command = unit._command

    def watch(value):
        command(value)
        if unit.status & TE and unit.root and \
                can(unit, DISPLAY, DSM + PAGE) < 0:
            lost.append(hex(value))
    unit._command = watch
    x.start()
    assert x.master(DISPLAY)
    assert can(unit, DISPLAY, DSM) == DSM
    assert can(unit, DISPLAY, DSM - PAGE) == -6
    assert can(unit, DISPLAY, 0x70000000) == -6
    rows = [(0, GIB, MIB, RW), (DSM, DSM, 3 * MIB, RW),
            (DSM + 3 * MIB, DSM + 3 * MIB, MIB, RW)]
    d = x.domain(rows)
    assert m.vtd_assign(x.vtd, d, DISPLAY) == 0
    assert can(unit, DISPLAY, DSM) == DSM and can(unit, DISPLAY, 0) == GIB
    assert lost == []
    x.check()


def test_interrupts_behind_each_unit(m):
    """One table for both: a change is in force in either at once, as a freed
    entry that another function gets would be."""
    x = igd(m).start()
    for unit, bdf in zip(x.units, (DISPLAY, NIC)):
        for vector in (0x61, 0x62):
            index = m.vtd_irq_alloc(x.vtd, bdf, 1)
            assert index == 0
            address = m.vtd_irq_msi(index, 1).address
            assert m.vtd_irq_set(x.vtd, index, vector, 0, False) == 0
            assert unit.interrupt(bdf, address) == (vector, 0)
            assert m.vtd_irq_set(x.vtd, index, vector + 2, 0, False) == 0
            assert unit.interrupt(bdf, address) == (vector + 2, 0)
            assert m.vtd_irq_free(x.vtd, index) == 0
            with pytest.raises(Fault, match="0x22"):
                unit.interrupt(bdf, address)
    x.check()


def test_a_context_entry_is_never_half_there(m):
    """A device may walk by between any two stores: what is present has its
    domain and its levels."""
    x = machine(m, ecaps=ecap(coherent=True)).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    seen = []

    def walk():
        contexts = model.walk.contexts(x.units[0].view, x.units[0].root)
        seen.extend((c.domain, c.levels) for c in contexts.values())
    x.stored = walk
    assert m.vtd_assign(x.vtd, d, EDU) == m.vtd_release(x.vtd, EDU) == 0
    assert set(seen) == {(d.id, 4)}


@pytest.mark.parametrize("size, err", [
    (64 << 10, None), (16 * MIB, None), (16 * MIB + PAGE, "ERANGE"),
    (1 << 37, "ERANGE")])
def test_what_is_left_with_its_firmware_is_small(m, size, err):
    """An RMRR is mapped by the page: a table that lies must not keep the
    start busy for hours."""
    at = 0x4000000000
    x = machine(m, dmar=table([drhd(Machine.BASE, include_all=True),
                               rmrr(at, at + size - 1, scope([(5, 0)]))]))
    assert m.vtd_init(x.vtd, x.acpi, x.pci, x.config) == 0
    f = next(f for f in x.pci.functions if f.bdf == EDU)
    got = m.vtd_leave(x.vtd, m.ffi.addressof(f))
    assert got == (-getattr(m, err) if err else 0)
    assert f.left == (not err)


def test_a_picture_in_overlapping_rmrrs(m):
    twice = table([drhd(Machine.BASE, include_all=True),
                   rmrr(DSM, DSM + MIB - 1, scope([(2, 0)])),
                   rmrr(DSM, DSM + MIB - 1, scope([(2, 0)])),
                   rmrr(DSM + MIB // 2, DSM + 2 * MIB - 1, scope([(2, 0)]))])
    x = machine(m, dmar=twice)
    x.config.display = DISPLAY
    x.start()
    for gpa in (DSM, DSM + 2 * MIB - 1):
        assert can(x.units[0], DISPLAY, gpa) == gpa


def test_a_picture_without_an_rmrr_keeps_its_memory(m):
    """Coreboot's, for one: its memory and the GTT's, as registers say, next
    to an RMRR that covers a part of it, and one beyond the unit's width."""
    partly = table([drhd(Machine.BASE, include_all=True),
                    rmrr(DSM - MIB, DSM + MIB - 1, scope([(2, 0)]))])
    for dmar, below in ((TABLE, -6), (partly, DSM - MIB)):
        x = machine(m, dmar=dmar)
        x.config.display = DISPLAY
        x.config.picture[0] = {"base": DSM, "size": 4 * MIB}
        x.config.picture[1] = {"base": 1 << 50, "size": 4 * MIB}
        x.start()
        assert x.master(DISPLAY)
        assert [can(x.units[0], DISPLAY, at) for at in (
            DSM, DSM + 4 * MIB - PAGE, DSM + 4 * MIB, DSM - MIB)] == [
                DSM, DSM + 4 * MIB - PAGE, -6, below]
        d = x.domain([(0, GIB, MIB, RW), (DSM - MIB, DSM - MIB, 5 * MIB, RW)])
        assert m.vtd_assign(x.vtd, d, DISPLAY) == 0
        assert can(x.units[0], DISPLAY, 0) == GIB


def test_no_memory_for_the_second_requester_id(m):
    x = machine(m, functions=bridged(None)).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    m.lib.fake_pages_left = 1
    assert m.vtd_assign(x.vtd, d, 0x108) == -m.ENOMEM
    assert d.devices == 0
    assert can(x.units[0], 0x108, 0) == can(x.units[0], 0x08, 0) == -2
    assert m.vtd_domain_destroy(d) == 0


@pytest.mark.parametrize("rows", [
    [], [(DSM, DSM, 4 * MIB, R)], [(DSM, DSM, 4 * MIB - PAGE, RW)],
    [(DSM, DSM + PAGE, 4 * MIB, RW)]])
def test_a_missing_rmrr_is_refused(m, rows):
    x = igd(m).start()
    assert m.vtd_assign(x.vtd, x.domain(rows), DISPLAY) == -m.EINVAL
    assert "00:02.0 needs 0x7c000000-0x7c3fffff 1:1" in m.log_text()
    assert can(x.units[0], DISPLAY, DSM) == DSM, "the picture is gone"


def test_units_of_other_segments_block_all(m):
    dmar = table([drhd(Machine.BASE, include_all=True, segment=1),
                  drhd(Machine.BASE + 0x1000, scope([(6, 0)]))])
    x = Machine(m, [(cap(), ecap())] * 2, FUNCTIONS, dmar).start()
    d = x.domain([])
    assert m.vtd_assign(x.vtd, d, EDU) == -m.ENODEV
    assert m.vtd_assign(x.vtd, d, NIC) == 0
    assert all(u.status & TE for u in x.units)


# --- Errors of the queue -------------------------------------------------

def test_one_bad_descriptor_is_survived(m):
    x = machine(m).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    assert can(x.units[0], EDU, 0) == GIB
    x.units[0].bad_descriptors = 1
    assert m.vtd_map(x.vtd, d, 0, 0, PAGE, 0) == 0
    assert can(x.units[0], EDU, 0) == -6
    assert "queue error" in m.log_text()


def test_a_queue_that_never_works_is_an_error(m):
    x = machine(m).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    x.units[0].bad_descriptors = 100
    assert m.vtd_map(x.vtd, d, 0, 0, PAGE, 0) == -m.EIO
    x.units[0].bad_descriptors = 0
    x.units[0].dead.add("queue")
    assert m.vtd_release(x.vtd, EDU) == -m.ETIMEDOUT
    assert d.devices == 1, "a device that may still reach it counts as there"


@pytest.mark.parametrize("what", ["context", "iotlb"])
def test_registers_that_never_finish(m, what):
    x = machine(m, ecaps=ecap(qi=False, ir=False))
    x.units[0].dead.add(what)
    x.init()
    assert m.vtd_start(x.vtd) == -m.ETIMEDOUT
    assert not x.units[0].status & TE


def test_the_queue_wraps(m):
    x = machine(m).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    for n in range(300):
        assert m.vtd_map(x.vtd, d, 0, 0, PAGE, 0) == 0
        assert can(x.units[0], EDU, 0) == -6
        assert m.vtd_map(x.vtd, d, 0, n * PAGE, PAGE, RW) == 0
        assert can(x.units[0], EDU, 0) == n * PAGE
    assert x.units[0].head < 4096


# --- Interrupts ----------------------------------------------------------

@pytest.mark.parametrize("x2apic, apic", [(False, 7), (True, 0x12345)])
def test_remapped_messages(m, x2apic, apic):
    x = machine(m, ecaps=ecap(eim=True))
    x.config.x2apic = x2apic
    x.start()
    unit = x.units[0]
    first = m.vtd_irq_alloc(x.vtd, EDU, 1)
    second = m.vtd_irq_alloc(x.vtd, NIC, 1)
    msi = m.vtd_irq_msi(first, 1)
    with pytest.raises(Fault, match="0x22"):
        unit.interrupt(EDU, msi.address, msi.data)
    assert m.vtd_irq_set(x.vtd, first, 0x61, apic, False) == 0
    assert unit.interrupt(EDU, msi.address, msi.data) == (0x61, apic)
    with pytest.raises(Fault, match="0x26"):
        unit.interrupt(NIC, msi.address, msi.data)
    with pytest.raises(Fault, match="0x22"):
        unit.interrupt(NIC, m.vtd_irq_msi(second, 1).address)
    with pytest.raises(Fault, match="0x25"):
        unit.interrupt(EDU, m.vtd_msi_plain(0x61, 0).address, 0x61)
    with pytest.raises(Fault, match="0x21"):
        unit.interrupt(EDU, m.vtd_irq_msi(m.VTD_IRTES, 1).address)
    # A change is in force at once
    assert m.vtd_irq_set(x.vtd, first, 0x62, apic, False) == 0
    assert unit.interrupt(EDU, msi.address, msi.data) == (0x62, apic)
    assert m.vtd_irq_free(x.vtd, first) == 0
    with pytest.raises(Fault, match="0x22"):
        unit.interrupt(EDU, msi.address, msi.data)
    assert m.vtd_irq_free(x.vtd, first) == -m.EINVAL
    assert m.vtd_irq_alloc(x.vtd, NIC, 1) == first


def test_bad_interrupt_arguments(m):
    x = machine(m).start()
    index = m.vtd_irq_alloc(x.vtd, EDU, 1)
    assert m.vtd_irq_set(x.vtd, index, 15, 0, False) == -m.EINVAL
    assert m.vtd_irq_set(x.vtd, index, 0x40, 256, False) == -m.EINVAL
    assert m.vtd_irq_set(x.vtd, index + 1, 0x40, 0, False) == -m.EINVAL
    assert m.vtd_irq_set(x.vtd, m.VTD_IRTES, 0x40, 0, False) == -m.EINVAL
    got = {m.vtd_irq_alloc(x.vtd, EDU, 1) for _ in range(m.VTD_IRTES - 1)}
    assert len(got) == m.VTD_IRTES - 1 and min(got) >= 0
    assert m.vtd_irq_alloc(x.vtd, EDU, 1) == -m.ENOSPC


def test_messages_of_one_msi(m):
    """Entries in a row; each has its vector, and its requester alone."""
    x = machine(m).start()
    unit = x.units[0]
    assert m.vtd_irq_alloc(x.vtd, NIC, 1) == 0
    first = m.vtd_irq_alloc(x.vtd, EDU, 8)
    assert first == 8 and m.vtd_irq_alloc(x.vtd, NIC, 1) == 1
    msi = m.vtd_irq_msi(first, 8)
    assert msi.data & 0xffff == 0
    vectors = [0x90 - 5 * n for n in range(8)]
    for n, vector in enumerate(vectors):
        assert m.vtd_irq_set(x.vtd, first + n, vector, 0, False) == 0
    assert [unit.interrupt(EDU, msi.address, msi.data | n)
            for n in range(8)] == [(vector, 0) for vector in vectors]
    for n in range(8):
        with pytest.raises(Fault, match="0x26"):
            unit.interrupt(NIC, msi.address, msi.data | n)
    assert m.vtd_irq_alloc(x.vtd, EDU, m.VTD_IRTES) == -m.ENOSPC
    blocks = []
    while (index := m.vtd_irq_alloc(x.vtd, EDU, 32)) >= 0:
        blocks.append(index)
    assert blocks == list(range(32, m.VTD_IRTES, 32))


def test_ioapic_pin(m):
    x = machine(m).start()
    index = m.vtd_irq_alloc_ioapic(x.vtd, 2)
    assert m.vtd_irq_alloc_ioapic(x.vtd, 3) == -m.ENODEV
    assert m.vtd_irq_set(x.vtd, index, 0x44, 1, True) == 0
    rte = m.vtd_irq_rte(index, {"vector": 0x44, "level": True,
                                "active_low": True, "masked": False})
    # 5.1.5.1: the index in 63:49 and 11, format in 48
    assert rte >> 49 | (rte >> 11 & 1) << 15 == index
    assert rte >> 48 & 1 and rte & 0xff == 0x44
    assert m.vtd_rte_index(rte) == index
    # In compatibility format: APIC 0xff, level, low
    assert m.vtd_rte_index(0xff << 56 | 0xa044) == -m.ENOTSUP
    assert rte >> 13 & 1 and rte >> 15 & 1 and not rte >> 16 & 1
    entry = model.walk.interrupts(x.units[0].view, x.units[0].irta & ~0xfff)[index]
    assert entry.level and entry.source == 0xf0ff and entry.vector == 0x44


def ioapics(m, scopes, madt):
    """DMAR's IOAPICs and MADT's, by their IDs."""
    x = machine(m, dmar=table([drhd(Machine.BASE, b"".join(
        scope([(0x1f, n)], kind=3, bus=0xf0, ident=n) for n in scopes),
        include_all=True)]))
    x.config.madt = x.madt = m.new("struct acpi_madt *")
    for at, ident in enumerate(madt):
        x.madt.ioapics[at].id = ident
    x.madt.ioapic_count = len(madt)
    return x.start()


@pytest.mark.parametrize("scopes, madt, warned", [
    ([2], [2], 0), ([2, 3], [3, 2], 0), ([2], [], 0), ([2], [0], 1)])
def test_ioapics_that_both_tables_know(m, scopes, madt, warned):
    """Where each has one alone, their names are no matter."""
    x = ioapics(m, scopes, madt)
    assert x.units[0].status & IRE
    assert m.log_text().count("has no IOAPIC") == warned
    for ident in madt:
        index = m.vtd_irq_alloc_ioapic(x.vtd, ident)
        assert m.vtd_irq_set(x.vtd, index, 0x44, 0, False) == 0
        source = 0xf0f8 | (scopes[0] if warned else ident)
        assert x.units[0].interrupt(source, m.vtd_irq_msi(index, 1).address) \
            == (0x44, 0)


@pytest.mark.parametrize("scopes, madt", [
    ([2, 3], [2, 4]), ([2], [2, 3]), ([2, 3], [0]), ([], [0])])
def test_ioapics_that_one_table_does_not_know(m, scopes, madt):
    """Nothing is remapped, so that no line is dead."""
    x = ioapics(m, scopes, madt)
    assert not x.units[0].status & IRE
    assert m.vtd_irq_alloc(x.vtd, EDU, 1) == -m.ENOTSUP
    assert f"has no IOAPIC {madt[-1]}, which the MADT has" in m.log_text()


def test_a_unit_for_all_others_that_does_not_answer(m):
    """The graphics' unit does: it remaps, and what is behind the other one
    gets nothing but plain entries of the I/O APIC."""
    x = Machine(m, [(cap((3,)), ecap()), (0, 0)], FUNCTIONS, table([
        drhd(Machine.BASE, scope([(2, 0)])),
        drhd(Machine.BASE + 0x1000, scope([(0x1f, 7)], kind=3, bus=0xf0,
                                          ident=2), include_all=True)]))
    x.config.madt = x.madt = m.new("struct acpi_madt *", {"ioapic_count": 1})
    x.madt.ioapics[0].id = 2
    x.start()
    assert x.units[0].status & IRE and x.units[1].log == []
    assert m.vtd_irq_alloc_ioapic(x.vtd, 2) == -m.ENOTSUP
    d = x.domain([(0, GIB, PAGE, RW)])
    for bdf in (EDU, NIC):
        assert not m.vtd_has_unit(x.vtd, bdf) and not x.master(bdf)
        assert m.vtd_assign(x.vtd, d, bdf) == -m.ENODEV
    assert m.vtd_assign(x.vtd, d, DISPLAY) == 0
    index = m.vtd_irq_alloc(x.vtd, DISPLAY, 1)
    assert m.vtd_irq_set(x.vtd, index, 0x55, 0, False) == 0
    assert x.units[0].interrupt(
        DISPLAY, m.vtd_irq_msi(index, 1).address) == (0x55, 0)


@pytest.mark.parametrize("ecaps, flags", [(ecap(ir=False), 1), (ecap(), 0)])
def test_without_remapping(m, ecaps, flags):
    x = machine(m, ecaps=ecaps, dmar=table(
        [drhd(Machine.BASE, include_all=True)], flags=flags)).start()
    assert not x.units[0].status & IRE
    assert "any interrupt by DMA" in m.log_text()
    assert m.vtd_irq_alloc(x.vtd, EDU, 1) == -m.ENOTSUP
    msi = m.vtd_msi_plain(0x61, 3)
    assert x.units[0].interrupt(EDU, msi.address, msi.data) == (0x61, 3)


def test_release_takes_mastering_interrupts_and_memory_in_that_order(m):
    x = machine(m).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    mine, others = m.vtd_irq_alloc(x.vtd, EDU, 1), m.vtd_irq_alloc(x.vtd, NIC, 1)
    for index in (mine, others):
        assert m.vtd_irq_set(x.vtd, index, 0x60 + index, 0, False) == 0
    msi = m.vtd_irq_msi(mine, 1)
    assert x.units[0].interrupt(EDU, msi.address) == (0x60, 0)
    m.lib.fake_config[x.functions.index(EDU)][4] = 6
    x.units[0].log.clear()
    writes = m.lib.fake_config_writes
    command = x.units[0]._descriptor

    def watch(low, high):
        assert not x.master(EDU)
        command(low, high)
    x.units[0]._descriptor = watch
    assert m.vtd_release(x.vtd, EDU) == 0
    assert m.lib.fake_config_writes == writes + 1
    log = x.units[0].log
    assert log.index("iec") < log.index("context") < log.index("iotlb")
    with pytest.raises(Fault, match="0x22"):
        x.units[0].interrupt(EDU, msi.address)
    assert x.units[0].interrupt(
        NIC, m.vtd_irq_msi(others, 1).address) == (0x60 + others, 0)


# --- Faults --------------------------------------------------------------

@pytest.mark.parametrize("reason, read, address, words", [
    (2, False, 0x12345000, "write 0x12345000: context entry not present"),
    (5, False, 0x1000, "write 0x1000: no right to write"),
    (6, True, 0xfffff000, "read 0xfffff000: no right to read"),
    (0x22, True, 17 << 48, "interrupt 0x11: entry not present"),
    (0x26, True, 3 << 48, "interrupt 0x3: wrong source"),
    (0x7f, True, 0, "read 0x0: unknown (reason 0x7f)"),
    (0, True, 0, "read 0x0: unknown (reason 0x00)"),
    (0xff, False, 0, "write 0x0: unknown (reason 0xff)")])
def test_a_fault_in_words(m, reason, read, address, words):
    x = machine(m).start()
    # QEMU leaves junk in the reserved bits.
    x.units[0].record(EDU, reason, address, read, junk=0xabcd)
    assert m.vtd_handle_faults(x.vtd) == 1
    assert f"fault 1 of 00:05.0 class 00ff: {words}" in m.log_text()
    assert m.vtd_handle_faults(x.vtd) == 0
    x.check()


@pytest.mark.parametrize("records", [1, 3, 8])
def test_all_records_are_taken_in_order(m, records):
    x = machine(m, cap(records=records)).start()
    unit = x.units[0]
    for start in range(5):
        m.reset()
        m.on_read(x._read)
        m.on_write(x._write)
        fit = [unit.record(EDU, 5, (start * 100 + n) << 12, False)
               for n in range(records + 2)]
        assert fit == [True] * records + [False] * 2
        lost = x.vtd.faults_lost
        assert m.vtd_handle_faults(x.vtd) == records
        assert x.vtd.faults_lost == lost + 1
        assert x.vtd.last_fault.address == \
            (start * 100 + records - 1) << 12
        assert unit.regs[0x34] & 3 == 0
    assert x.vtd.faults == 5 * records


@pytest.mark.parametrize("records, more", [(1, 1), (4, 1), (4, 2), (8, 3)])
def test_faults_that_come_meanwhile_do_not_end_all_events(m, records, more):
    """7.3: none comes while a record waits or an overflow is noted."""
    x = machine(m, cap(records=records)).start()
    unit, left = x.units[0], [20]

    def on_write(kind, addr, size, value):
        answer = x._write(kind, addr, size, value)
        if size == 4 and value == 1 << 31 and left[0]:
            left[0] -= 1
            for _ in range(more):
                unit.record(EDU, 5, 0)
        return answer
    m.on_write(on_write)
    for _ in range(records):
        unit.record(EDU, 5, 0)
    taken = m.vtd_handle_faults(x.vtd)
    assert taken == records + 20 if more == 1 else x.vtd.faults_lost == 1
    assert unit.regs[0x34] & 3 == 0
    left[0] = 0
    assert unit.record(EDU, 5, 0) and m.vtd_handle_faults(x.vtd) == 1


@pytest.mark.parametrize("records", [1, 4])
def test_faults_of_a_previous_owner_are_dropped(m, records):
    """They are no one's here, and while one is left no event would come."""
    x = machine(m, cap(records=records))
    for n in range(records + 1):
        x.units[0].record(DISPLAY, 5, n << 12)
    assert x.units[0].regs[0x34] & 3 == 3
    x.config.dma_faults, x.config.display = 1, DISPLAY
    x.start()
    assert x.units[0].regs[0x34] & 3 == 0
    assert m.vtd_handle_faults(x.vtd) == x.vtd.faults == 0
    assert "fault" not in m.log_text() and x.master(DISPLAY)
    assert x.units[0].record(DISPLAY, 5, 0)
    assert m.vtd_handle_faults(x.vtd) == 1


def test_no_storm_in_the_log(m):
    x = machine(m).start()
    for n in range(5000):
        x.units[0].record(EDU, 5, n << 12, False)
        assert m.vtd_handle_faults(x.vtd) == 1
    lines = [t for _, t in m.log_lines() if "fault" in t]
    assert len(lines) < 30
    assert any("fault 4096 of 00:05.0" in t for t in lines)


def test_too_many_faults_stop_the_device(m):
    x = machine(m)
    stopped = []
    x.config.dma_faults = 10
    x.config.stopped = m.callback("void(void *, uint16_t)",
                                  lambda ctx, bdf: stopped.append(bdf))
    x.start()
    for bdf in (EDU, NIC):
        m.lib.fake_config[x.functions.index(bdf)][4] = 6
    for n in range(9):
        x.units[0].record(EDU, 5, n << 12)
        x.units[0].record(NIC, 5, n << 12) if n < 5 else None
        m.vtd_handle_faults(x.vtd)
    assert stopped == [] and x.master(EDU)
    x.units[0].record(EDU, 5, 0)
    m.vtd_handle_faults(x.vtd)
    assert stopped == [EDU] and not x.master(EDU) and x.master(NIC)
    assert "00:05.0: bus mastering off after 10 faults" in m.log_text()
    # The guest switches it on again and goes on
    m.lib.fake_config[x.functions.index(EDU)][4] = 6
    for n in range(10):
        x.units[0].record(EDU, 5, n << 12)
        m.vtd_handle_faults(x.vtd)
    assert not x.master(EDU)


def test_a_display_is_silenced_and_never_ended(m):
    """3,000 faults each. Its unit holds back what FPD names (VT-d 9.3)."""
    x = machine(m)
    x.config.dma_faults = 1000
    x.start()
    d = x.domain([(0, GIB, PAGE, RW), (DSM, DSM, MIB, RW)])
    unit = x.units[0]
    for bdf in (DISPLAY, EDU):
        assert m.vtd_assign(x.vtd, d, bdf) == 0
        m.lib.fake_config[x.functions.index(bdf)][4] = 6
    for n in range(3000):
        for bdf in (DISPLAY, EDU):
            if not model.walk.contexts(unit.view, unit.root)[bdf].fault_off:
                unit.record(bdf, 6, n << 12)
            m.vtd_handle_faults(x.vtd)
    assert x.master(DISPLAY) and not x.master(EDU)
    assert [m.vtd_fault_count(x.vtd, bdf) for bdf in (DISPLAY, EDU)] == [
        1000, 3000]
    assert can(unit, DISPLAY, 0) == GIB, "it still does what it may"
    assert m.log_text().count("00:02.0 is a display: after 1000 faults") == 1
    # Interrupts that it has no entry for are no picture.
    for n in range(1000):
        unit.record(DISPLAY, 0x22, n)
        m.vtd_handle_faults(x.vtd)
    assert not x.master(DISPLAY)


MINUTE = 60 * 2_000_000_000


@pytest.mark.parametrize("apart, ends", [
    (MINUTE // 1000, True),         # 3,000 within three minutes
    (MINUTE // 900, False), (MINUTE, False), (MINUTE * 9, False)])
def test_faults_stop_a_device_by_their_rate(m, apart, ends):
    """3,000 of them; what comes now and then in weeks is no storm."""
    x = machine(m)
    x.config.dma_faults, x.config.fault_ticks = 1000, MINUTE
    x.start()
    m.lib.fake_config[x.functions.index(EDU)][4] = 6
    for n in range(3000):
        m.tsc += apart - 1
        x.units[0].record(EDU, 5, n << 12)
        m.vtd_handle_faults(x.vtd)
    assert x.master(EDU) == (not ends)
    assert m.vtd_fault_count(x.vtd, EDU) == 3000
    assert ("bus mastering off after 1000 faults" in m.log_text()) == ends
    # And then at once
    m.lib.fake_config[x.functions.index(EDU)][4] = 6
    for n in range(2000):
        x.units[0].record(EDU, 5, n << 12)
        m.vtd_handle_faults(x.vtd)
    assert not x.master(EDU)
    assert "bus mastering off after 1000 faults" in m.log_text()


def test_a_guest_that_switches_it_on_again_fills_no_log(m):
    x = machine(m)
    x.config.dma_faults = 1
    x.start()
    for n in range(2000):
        m.lib.fake_config[x.functions.index(EDU)][4] = 6
        x.units[0].record(EDU, 5, n << 12)
        m.vtd_handle_faults(x.vtd)
        assert not x.master(EDU)
    assert len(m.log_lines()) < 60


def test_never_is_never_but_ends_in_silence(m):
    """dma-faults=0: the device goes on, its fault events come to an end."""
    x = machine(m).start()
    d = x.domain([(0, GIB, PAGE, RW)])
    assert m.vtd_assign(x.vtd, d, EDU) == 0
    m.lib.fake_config[x.functions.index(EDU)][4] = 6
    x.vtd.sources[0].source, x.vtd.source_count = EDU, 1
    x.vtd.sources[0].count = m.VTD_FAULTS_SILENCED - 2

    def silent():
        return model.walk.contexts(x.units[0].view,
                                   x.units[0].root)[EDU].fault_off
    for wanted in (False, True):
        assert can(x.units[0], EDU, 0) == GIB
        x.units[0].record(EDU, 5, 0)
        m.vtd_handle_faults(x.vtd)
        assert silent() == wanted
    assert EDU not in x.units[0].context_cache, "the old entry is in force"
    assert can(x.units[0], EDU, 0) == GIB and can(x.units[0], EDU, PAGE) == -6
    assert x.master(EDU)
    x.check()


@pytest.mark.parametrize("bdf", [NIC, 0x6400, 0x64f8])
def test_what_has_no_context_entry_ends_in_silence_too(m, bdf):
    """FPD counts where P is clear (9.3; 7.1.3: reason 2 is qualified by it):
    a function that nobody was given, or that no scan has found."""
    x = machine(m).start()
    unit = x.units[0]
    x.vtd.sources[0].source, x.vtd.source_count = bdf, 1
    x.vtd.sources[0].count = m.VTD_FAULTS_SILENCED - 1
    assert can(unit, bdf, 0) == -2
    unit.record(bdf, 2, 0)
    assert m.vtd_handle_faults(x.vtd) == 1
    root, = struct.unpack("<Q8x", unit.view((unit.root & ~0xfff) +
                                            16 * (bdf >> 8), 16))
    assert root & 1
    entries = unit.view(root & ~0xfff, PAGE)
    assert {at: lo for at, (lo, hi) in enumerate(
        struct.iter_unpack("<QQ", entries)) if lo or hi} == {bdf & 0xff: 2}
    assert can(unit, bdf, 0) == -2
    x.check()
    if bdf == NIC:
        d = x.domain([(0, GIB, PAGE, RW)])
        assert m.vtd_assign(x.vtd, d, bdf) == 0
        contexts = model.walk.contexts(unit.view, unit.root)
        assert not contexts[bdf].fault_off and can(unit, bdf, 0) == GIB


def test_a_shared_requester_stops_all_behind_it(m):
    x = machine(m, functions=bridged(7))
    x.config.dma_faults = 1
    x.start()
    for bdf in (0x100, 0x108, 0):
        m.lib.fake_config[x.functions.index(bdf)][4] = 6
    x.units[0].record(0x100, 5, 0)
    m.vtd_handle_faults(x.vtd)
    assert not x.master(0x100) and not x.master(0x108)
    assert x.master(0) and x.master(0x08)
    assert [m.vtd_fault_count(x.vtd, bdf) for bdf in (0x100, 0x108, 0)] == [
        1, 1, 0]


def test_more_sources_than_the_table_holds(m):
    x = machine(m).start()
    for n in range(300):
        x.units[0].record(n, 2, 0)
        m.vtd_handle_faults(x.vtd)
    assert x.vtd.faults == 300
    assert sum(s.count for s in x.vtd.sources) == 300


@pytest.mark.parametrize("x2apic", [False, True])
def test_fault_event(m, x2apic):
    x = machine(m, ecaps=ecap(eim=True))
    x.config.fault_vector, x.config.x2apic = 0x71, x2apic
    x.config.apic_id = 0x105 if x2apic else 5
    x.start()
    regs = x.units[0].regs
    assert regs[0x38] == 0 and regs[0x3c] == 0x71
    assert regs[0x40] == 0xfee05000
    assert regs[0x44] == (0x100 if x2apic else 0)
    x = machine(m).start()
    assert x.units[0].regs[0x38] == 1 << 31, "polled, so masked"


# --- The order is needed: a driver without a step fails above ------------

MUTANTS = {
    "no clflush": ("regs.c", "clflush(line);", "(void)line;"),
    "table linked before its content":
        ("tables.c", "vtd_flush(table, PAGE_SIZE, t->flush);", ""),
    "entries not flushed": (
        "tables.c", "vtd_flush(&table[first], (i - first) * sizeof(u64), "
        "t->flush);", ""),
    "context not flushed": (
        "unit.c", "vtd_flush((const void *)e, sizeof(*e), u->flush);", ""),
    "no write-buffer flush": (
        "invalidate.c", "u->write_buffer ? unit_command(u, VTD_GCMD_WBF, true)"
        " : 0", "0 * (int)u->levels"),
    "no invalidation after unmap": (
        "vtd.c", "!rights);", "0);"),
    "caching mode forgotten": ("invalidate.c", "!(u->cap & VTD_CAP_CM)", "1"),
    "no invalidation after assign": (
        "vtd.c", "synced = inv_all(u);", "synced = 0;"),
    "no invalidation after release": (
        "vtd.c", "err = err ? err : inv_all(u);", ""),
    "tail not moved": ("invalidate.c", "unit_write64(u, VTD_IQT, u->tail",
                       "unit_write64(u, VTD_IQT, 0 * u->tail"),
    "interrupt entry not invalidated": (
        "remap.c", "err = inv_interrupt(&v->units[i], (int)index);",
        "err = 0;"),
    "interrupt entry not flushed": (
        "remap.c", "vtd_flush(half, sizeof(*half), true);", ""),
    "queue switched off without a wait": (
        "invalidate.c", "unit_write64(u, VTD_IQT, next);", "(void)next;"),
    "queue's error not cleared": (
        "invalidate.c", "unit_write32(u, VTD_FSTS, VTD_FSTS_QUEUE); "
        "unit_write64(u, VTD_IQT, next);", ""),
    "old queue not drained": (
        "invalidate.c", "unit_wait(u, VTD_IQH, ~0u, "
        "(u32)unit_read64(u, VTD_IQT))", "0"),
    "old faults kept": ("faults.c", "free_record(u, VTD_CAP_FRO(u->cap) + "
                        "i * RECORD_SIZE);", "(void)i;"),
    "old root's translations kept": (
        "unit.c", "return err ? err : inv_all(u);", "return err;"),
    "one-shot bits repeated": (
        "regs.c", " & ~VTD_GCMD_ONE_SHOT", ""),
    "protected memory given up first": (
        "unit.c", "err = unit_command(u, VTD_GCMD_TE, true);",
        "unit_write32(u, VTD_PMEN, 0), "
        "err = unit_command(u, VTD_GCMD_TE, true);"),
}


def scenario(m):
    """The life of a device, on units of every kind."""
    for caps, ecaps in VARIANTS:
        m.reset()
        test_map_use_unmap(m, caps, ecaps)
    for test in (test_cold_start_blocks_everything,
                 test_protected_memory_is_given_up_only_behind_translation,
                 test_release_takes_mastering_interrupts_and_memory_in_that_order):
        m.reset()
        test(m)
    m.reset()
    test_taken_over_from_a_previous_owner(m, 0, 0)
    for test in (test_queue_of_a_previous_owner_drains_first,
                 lambda m: test_faults_of_a_previous_owner_are_dropped(m, 4),
                 lambda m: test_queue_of_a_previous_owner(
                     m, BAD, 0, PAGE - 16, False)):
        m.reset()
        test(m)
    m.reset()
    test_remapped_messages(m, False, 7)


def test_the_scenario_passes_unchanged(m):
    scenario(m)


def mutate(text, old, new):
    """old in place of new, whatever white space lies between old's words."""
    pattern = r"\s+".join(re.escape(word) for word in old.split())
    changed, count = re.subn(pattern, lambda _: new, text)
    assert count, "the step is not in the source any more"
    return changed


@pytest.mark.parametrize("name", MUTANTS)
def test_a_driver_without_the_step_fails(name):
    file, old, new = MUTANTS[name]
    text = (model.harness.ROOT / "drivers/vtd" / file).read_text()
    path = model.harness._file_of_text(mutate(text, old, new), "vtd-mutant")
    mutant = model.build("vtd_mutant", [
        path if s == f"drivers/vtd/{file}" else s for s in model.SOURCES],
        sanitize=False)
    with pytest.raises((AssertionError, ValueError, Fault, model.TableError)):
        scenario(mutant)
