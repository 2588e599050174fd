# SPDX-License-Identifier: MIT
"""The whole start (boot/main.c) between rooms that only note their calls: the
order, what refuses before anything changes, and what each room is told."""

import mmap
import re

import pytest

import harness

MAGIC, GIB, MIB, PAGE = 0x36d76289, 2**30, 2**20, 4096
MAP_32BIT = 0x40    # info's address is a word of 32 bits
VERSION = re.search(r"^## \[(.*?)\]", (harness.ROOT / "CHANGELOG.md")
                    .read_text(), re.M)[1]


@pytest.fixture
def m(module):
    module.fresh_start()
    module.start.mcfg = {"base": 0xe0000000}
    return module


@pytest.fixture(scope="module")
def module():
    return harness.build(
        "start", [], fakes="tests/unit/start_fakes.c",
        headers=["tests/unit/start_fakes.h", "kernel/log.h", "kernel/traps.h"])


def fail(m, name):
    m.ffi.memmove(m.start.failing, name.encode() + b"\0", len(name) + 1)


def notes(m):
    return m.string(m.start.notes).split()


def end(m):
    return m.start.status, m.string(m.start.end)


def errors(m):
    return [t for level, t in m.log_lines() if level == m.LOG_ERROR]


def warnings(m):
    return [t for level, t in m.log_lines() if level == m.LOG_WARN]


# -- what GRUB hands over

@pytest.mark.parametrize("magic, failing, said", [
    (MAGIC - 1, "", "not started by a multiboot2 loader"),
    (0x2badb002, "", "not started by a multiboot2 loader"),
    (MAGIC, "multiboot2_parse", None)])
def test_a_loader_that_cannot_be_understood(m, magic, failing, said):
    """Where the log goes is not known; COM1 and the debug port hurt nobody."""
    fail(m, failing)
    m.start_reads(magic)
    assert end(m) == (m.END_REFUSED, "refused")
    assert m.start.sinks == m.LOG_COM1 | m.LOG_E9
    assert m.start.level == m.LOG_INFO
    assert "options_parse" not in notes(m)
    assert said is None or said in errors(m)[0]


@pytest.mark.parametrize("words, level", [
    ((), "LOG_INFO"), (("quiet",), "LOG_ERROR"), (("debug",), "LOG_DEBUG"),
    (("quiet", "debug"), "LOG_ERROR")])
def test_how_much_the_log_says(m, words, level):
    m.start.options.sinks = 5
    for word in words:
        setattr(m.start.options, word, True)
    host = m.start_reads(MAGIC)
    assert end(m) == (-1, "")
    assert (m.start.sinks, m.start.level) == (5, getattr(m, level))
    assert "info:1234" in notes(m)
    assert host.boot.image == 0x100000 and host.boot.image_size
    top = (host.boot.image + host.boot.image_size) % 2**64
    assert m.log_lines() == [(m.LOG_INFO, (
        f"Monocle {VERSION}, at 0x100000-{top:#x}, started by GRUB"))]


@pytest.mark.parametrize("failing, status, how", [
    ("options_parse", 4, "refused"), ("", 0, "help")])
def test_not_even_quiet_hides_what_is_wrong(m, failing, status, how):
    m.start.options.quiet = True
    m.start.options.help = not failing
    fail(m, failing)
    m.start_reads(MAGIC)
    assert end(m) == (status, how)
    assert m.start.level == m.LOG_INFO
    assert ("options_help" in notes(m)) == (how == "help")


# -- memory

@pytest.mark.parametrize("failing", ["", "host_paging_init", "percpu_create"])
def test_monocles_own_memory(m, failing):
    """Below 4 GiB until its own page tables are there."""
    fail(m, failing)
    m.start_takes_memory()
    assert notes(m)[:2] == [f"phys:{4 * GIB:x}", f"paging:{4 * GIB:x}"]
    if failing:
        assert end(m) == (m.END_REFUSED, "refused")
        assert "too little memory for Monocle itself" in errors(m)[0]
        assert "percpu_load" not in notes(m)
    else:
        assert notes(m)[3:] == ["cpu:12", "percpu_create", "percpu_load"]
        assert "memory: 510 MiB free in 0 ranges" in m.log_text()
        assert end(m) == (-1, "")


@pytest.mark.parametrize("on_screen", [True, False])
def test_the_screen_is_mapped_as_large_as_it_is(m, on_screen):
    m.start.on_screen = on_screen
    host = m.start_reads(MAGIC)
    fb = m.ffi.cast("struct host *", host).boot.fb
    fb.base, fb.pitch, fb.height = 0x4000000000, 0x10000, 0x10001
    m.start_takes_memory()
    assert notes(m)[-4:] == (
        ["map:4000000000", "size:100010000", "mmio_map", "screen:4000000000"]
        if on_screen else notes(m)[-4:])
    assert ("mmio_map" in notes(m)) == on_screen


@pytest.mark.parametrize("ram, top, moved", [
    ("RAM_IDENTITY", True, True), ("RAM_IDENTITY", False, False),
    ("RAM_RELOCATED", True, False)])
def test_what_the_loader_left_is_no_hole_in_the_guests_memory(
        m, ram, top, moved):
    """With ram=identity it is copied to the top; what lies higher stays."""
    memory = mmap.mmap(-1, 8 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS |
                       MAP_32BIT)
    at = int(m.ffi.cast("size_t", m.ffi.from_buffer(memory)))
    memory[:5], memory[PAGE:PAGE + 6], memory[7 * PAGE:7 * PAGE + 4] = (
        b"words", b"kernel", b"high")
    m.start.options.ram = getattr(m, ram)
    m.start.info, m.start.info_size = at, 5
    m.start.modules[0].start, m.start.modules[0].size = at + PAGE, 6
    m.start.modules[1].start, m.start.modules[1].size = at + 7 * PAGE, 4
    m.start.top = at + 7 * PAGE if top else 0
    host = m.ffi.cast("struct host *", m.start_reads(MAGIC))
    m.start_takes_memory()
    boot = host.boot
    places = [boot.info, boot.modules[0].start, boot.modules[1].start]
    assert boot.module_count == 2 and boot.image == 0x100000
    assert [(p - at) // PAGE for p in places] == (
        [6, 5, 7] if moved else [0, 1, 7])
    assert [bytes(m.ffi.buffer(m.ffi.cast("char *", p), n))
            for p, n in zip(places, (5, 6, 4))] == [b"words", b"kernel",
                                                    b"high"]
    # What is free is asked again.
    assert notes(m).count(f"phys:{4 * GIB:x}") == 1 + moved


# -- the log, here and of the last start

def test_the_last_starts_log(m):
    """Its last line; this start's is kept at the same place."""
    m.start.log_at, m.start.last = 0x5000, b"one\ntwo\n"
    m.start_takes_memory()
    assert [text for _, text in m.log_lines() if "last start" in text] == [
        "last start: two"]
    assert notes(m).count("log_keep") == 1
    assert "log: kept at 0x5000 for the next start" in m.log_text()


def test_the_list_tells_all_of_it_and_leaves_it(m):
    m.start.log_at, m.start.last = 0x5000, b"one\ntwo"
    m.start.options.list = True
    m.start_reads(MAGIC)
    m.start_takes_memory()
    m.start_runs()
    assert [text for _, text in m.log_lines() if "last start" in text] == [
        "last start: one", "last start: two"]
    assert "log_keep" not in notes(m)


@pytest.mark.parametrize("cls, bar, port", [
    (0x0700, 0xf0a1, 0xf0a0), (0x0700, 0xf7f00000, 0), (0x0600, 0xf0a1, 0),
    (0x0700, 1, 0)])
def test_a_serial_port_on_the_pci(m, cls, bar, port):
    """Its ports are switched on: firmware may have left them off."""
    m.start.options.sinks, m.start.classes = m.LOG_PCI, 3
    getattr(m.start, "class")[1] = cls
    m.start.bar, m.start.uart_at = bar, 0x10
    m.start_runs()
    assert m.start.uart == port
    assert m.start.command == (0x407 if port else 0)
    assert ("no PCI function is a serial port" in m.log_text()) == (not port)


@pytest.mark.parametrize("at, kind, port", [
    (0x2f8, 0, 0x2f8), (0xffff, 0, 0xffff), (0x10000, 0, 0x10000), (0, 0, 0),
    (0xe0000000, 1, 0), (0xe0000000, 2, 0xe0000000)])
def test_a_serial_port_by_table(m, at, kind, port):
    """Eight registers, 4 bytes apart at most; one that lies in RAM is wrong."""
    m.start.options.sinks, m.start.table_uart = m.LOG_UART, at
    m.start.mcfg.base, m.start.ecam_kind = 0xe0000000, kind
    m.start_runs()
    assert m.start.uart == port
    assert ("neither SPCR nor DBG2" in m.log_text()) == (not port)
    if at > 0xffff:
        assert m.start.looked_at == 32
        assert (f"map:{at:x} size:20" in " ".join(notes(m))) == bool(port)


# -- the order

BEFORE = ["microcode_init", "microcode:1",
          "acpi_init", "acpi_madt_init", "acpi_power_init", "acpi_mcfg_init",
          "map:e0000000", "size:100000", "mmio_map", "pci_use_ecam", "pci_scan",
          "host_irq_alloc", "vtd_handle_faults", "vtd_init", "pci_acs_probe",
          "bios_check", "vmx_probe", "vmx_choose_clock",
          "vmx_choose_apicv", "timer:0", "tsc_frequency", "machine_connect", "machine_plan"]
INTERRUPTS = ["assigned_take_over", "map:fee00000", "size:1000", "mmio_map",
              "apic:fee00000", "spurious:ff", "host_irq_init"]
IOMMU = ["vtd_start", "host_irq_remap"]
CPUS = ["page_alloc", "lpit:60", "park:3e8", "vmxon:5000", "vmx_enable"]
AFTER = ["machine_build", "log_leave_screen", "machine_run"]


def test_the_order_of_the_start(m):
    """Devices are firmware's up to the take-over, which comes before their
    DMA ends; interrupts before the IOMMU, which remaps them."""
    m.start.apic_base, m.start.remapping = 0xfee00900, True
    assert m.HOST_VECTOR_SPURIOUS == 0xff
    host = m.start_runs()
    assert notes(m) == BEFORE + INTERRUPTS + IOMMU + CPUS + AFTER
    assert host.has_vtd and host.has_vmx and host.tsc_hz == 1000 and \
        host.tsc_exact
    assert host.screen_row == 7 and m.start.apic_id == 9
    assert host.microcode == 0x20
    assert host.vtd.config.fault_ticks == 60 * 1000     # a minute's


@pytest.mark.parametrize("step", [
    "bios_check", "vmx_probe", "vmx_choose_clock", "vmx_choose_apicv",
    "tsc_frequency", "machine_plan"])
def test_what_refuses_does_so_before_anything_changes(m, step):
    fail(m, step)
    m.start_runs()
    assert end(m) == (m.END_REFUSED, "refused")
    assert notes(m) == BEFORE[:BEFORE.index(step) + 1]
    assert [t.split(":")[0] for t in errors(m)] == (
        ["the TSC's frequency is unknown"] if step == "tsc_frequency" else [])


@pytest.mark.parametrize("step, status, said", [
    ("vtd_start", "END_REFUSED", "an IOMMU cannot be taken over"),
    ("page_alloc", "END_PANIC", None), ("vmx_enable", "END_PANIC", None),
    ("machine_build", "END_REFUSED", None)])
def test_what_fails_later(m, step, status, said):
    fail(m, step)
    m.start_runs()
    assert m.start.status == getattr(m, status)
    assert "machine_run" not in notes(m)
    assert said is None or said in errors(m)[0]


@pytest.mark.parametrize("step, verdict", [
    ("", 0), ("bios_check", "ENOTSUP"), ("vmx_probe", "ENOTSUP"),
    ("vmx_choose_clock", "ENOTSUP"),
    ("tsc_frequency", "ENODEV"), ("machine_plan", "EIO")])
def test_the_list_asks_the_same(m, step, verdict):
    """Without VMX it goes on with the plan, which tells what else there is."""
    m.start.options.list = True
    fail(m, step)
    m.start_runs()
    assert end(m) == (m.END_POWER_OFF, "list")
    assert m.start.verdict == (verdict and getattr(m, verdict))
    seen = notes(m)
    assert "assigned_take_over" not in seen and seen[-1] == "list_verdict"
    assert seen.index("machine_connect") < seen.index("list_functions") < \
        seen.index("bios_check")
    assert ("machine_plan" in seen) == (step in ("", "vmx_probe",
                                                 "machine_plan"))


# -- tables

@pytest.mark.parametrize("kind, failing, there", [
    (2, "", True), (0, "", True), (1, "", False), (2, "mmio_map", False),
    (2, "acpi_mcfg_init", False), (2, "pci_use_ecam", False)])
def test_configuration_space_in_memory(m, kind, failing, there):
    """Where RAM is it cannot be, nor where it cannot be mapped."""
    m.start.mcfg = {"base": 0xe0000000, "last_bus": 63}
    m.start.ecam_kind = kind
    fail(m, failing)
    host = m.start_runs()
    assert host.pci.ecam == (0xe0000000 if there else 0)
    assert host.pci.ecam_last_bus == (63 if there else 0)
    assert any("MCFG table has it, at 0xe0000000; by ports, the first 256 "
               "bytes" in text for text in warnings(m)) == (
                   not there and failing != "acpi_mcfg_init")
    assert m.start.looked_at == (MIB if failing != "acpi_mcfg_init" else 0)
    if there:
        assert "map:e0000000" in notes(m) and f"size:{64 * MIB:x}" in notes(m)


def test_a_machine_without_acpi_starts(m):
    fail(m, "acpi_init")
    m.start_runs()
    assert "acpi: no tables" in warnings(m)[0]
    assert "machine_run" in notes(m)


@pytest.mark.parametrize("fields, writes", [
    ({"pm1a_cnt": 0x604, "has_s5": True, "slp_typ_a": 5, "slp_typ_b": 7},
     [(0x604, 5 << 10 | 1 << 13)]),
    ({"pm1a_cnt": 0x604, "pm1b_cnt": 0x608, "has_s5": True, "slp_typ_a": 5,
      "slp_typ_b": 15}, [(0x604, 0x3400), (0x608, 0x3c00)]),
    ({"pm1a_cnt": 0x604}, []), ({"pm1b_cnt": 0x608, "has_s5": True}, [])])
def test_power_off(m, fields, writes):
    """ACPI 6.4, 4.8.3.2.1: SLP_TYP in bits 12:10, SLP_EN bit 13."""
    m.start.power = fields
    m.start_runs()
    m.clear_events()
    m.start_powers_off()
    assert [(e.addr, e.value) for e in m.events("out")] == writes


# -- the IOMMU

def test_what_vtd_is_told(m):
    m.start.options.dma_faults = 77
    m.start_runs()
    config = m.start.config
    assert (config.fault_vector, config.apic_id, config.dma_faults) == \
        (0x31, 0x12, 77)
    assert not config.x2apic and not config.write_buffer
    assert config.display == m.VTD_NO_DISPLAY
    assert config.stopped != m.NULL and config.ctx != m.NULL
    config.stopped(config.ctx, 5)
    assert notes(m)[-1] == "assigned_stopped"


def test_without_a_vector_its_faults_are_polled(m):
    fail(m, "host_irq_alloc")
    m.start.apic_base = 0x400
    m.start_runs()
    assert m.start.config.fault_vector == 0 and m.start.config.x2apic


@pytest.mark.parametrize("classes, display", [
    ([0x600, 0x300, 0x380], 0x10), ([0x380, 0x300], 0x08),
    ([0x600, 0x403], 0xffff)])
def test_the_display_is_the_first_one(m, classes, display):
    m.start.classes = len(classes)
    for n, cls in enumerate(classes):
        getattr(m.start, "class")[n] = cls
    m.start_runs()
    assert m.start.config.display == display
    assert m.start.config.direct == m.VTD_NO_DISPLAY
    # Intel's is scanned out of memory of its own.
    assert m.start.config.picture[0].size == (0x1000 if display == 0x10 else 0)


def test_graphics_whose_dma_is_not_remapped(m):
    m.start.classes, m.start.direct = 2, True
    getattr(m.start, "class")[1] = 0x300
    m.start_runs()
    assert m.start.config.direct == m.start.config.display == 0x10


@pytest.mark.parametrize("vendor, device, needs", [
    (0x8086, 0x2a40, True), (0x8086, 0x2e00, True), (0x8086, 0x2e90, True),
    (0x8086, 0x2a41, False), (0x8086, 0x2dff, False), (0x8086, 0x2e91, False),
    (0x1022, 0x2e10, False)])
def test_chipsets_that_do_not_say_that_they_buffer(m, vendor, device, needs):
    """Linux's quirk_iommu_rwbf: of Cantiga and Eaglelake."""
    m.start.id = vendor | device << 16
    m.start_runs()
    assert m.start.config.write_buffer == needs


@pytest.mark.parametrize("options, failing, said, tried", [
    ({"iommu": 1}, "", "iommu=off: nothing is assigned", False),
    ({"iommu": 1, "unsafe_dma": True}, "",      # all that without ram=identity
     "iommu=off: nothing is assigned", False),
    ({"iommu": 1, "unsafe_dma": True, "ram": 1}, "",
     "can read and write all memory", False),
    ({}, "acpi_find", "no IOMMU (no DMAR table", False),
    ({}, "vtd_init", "VT-d cannot be used", True)])
def test_without_an_iommu(m, options, failing, said, tried):
    """What firmware has left on of one stays while nothing may change; then
    interrupts' remapping ends, and DMA's where all memory is in reach."""
    for name, value in options.items():
        setattr(m.start.options, name, value)
    fail(m, failing)
    host = m.start_runs()
    assert not host.has_vtd and said in " ".join(warnings(m))
    assert ("vtd_init" in notes(m)) == tried
    assert "pci_acs_probe" not in notes(m)
    assert "vtd_start" not in notes(m) and "host_irq_remap" not in notes(m)
    assert "machine_run" in notes(m)
    assert [n for n in notes(m) if n.startswith("unused")] == [
        *["unused:0"] * (not tried),
        "unused:82000000" if "ram" in options else "unused:2000000"]
    # VT-d 11.4.4.1: IRE is bit 25, TE bit 31.


def pin(m, **fields):
    return m.new("struct host_irq_pin *", {
        "ioapic_id": 2, "vector": 0x41, "apic_id": 3, "level": True,
        "active_low": False, **fields})


@pytest.mark.parametrize("level, low", [(True, False), (False, True)])
def test_a_pin_goes_through_the_remapping_table(m, level, low):
    m.start.remapping, m.start.index = True, 5
    m.start_runs()
    assert m.start_composes(pin(m, level=level, active_low=low)) == 0x1005
    assert f"entry:{5 << 24 | 0x41 << 16 | 3 << 4 | level:x}" in notes(m)
    assert "ioapic:2" in notes(m)
    p = m.start.pin
    assert (p.vector, p.level, p.active_low, p.masked) == (
        0x41, level, low, False)


def test_a_pin_keeps_its_entry_of_the_table(m):
    m.start.remapping, m.start.index = True, 5
    m.start_runs()
    assert m.start_composes(pin(m, entry=0x1009)) == 0x1009
    assert f"entry:{9 << 24 | 0x41 << 16 | 3 << 4 | 1:x}" in notes(m)
    assert "ioapic:2" not in notes(m)


@pytest.mark.parametrize("index, failing, entry", [
    ("ENOTSUP", "", "HOST_IRQ_PLAIN"), ("ENOSPC", "", 0),
    (5, "vtd_irq_set", 0), (0, "", 0x1000)])
def test_a_pin_that_cannot_be_remapped(m, index, failing, entry):
    """0 leaves it masked; an I/O APIC that no unit has is as it was."""
    m.start.remapping = True
    m.start.index = -getattr(m, index) if isinstance(index, str) else index
    fail(m, failing)
    m.start_runs()
    assert m.start_composes(pin(m)) == (
        2**64 - 1 if entry == "HOST_IRQ_PLAIN" else entry)


def test_units_that_do_not_remap_interrupts(m):
    m.start_runs()
    assert "vtd_start" in notes(m) and "host_irq_remap" not in notes(m)


# -- the end

@pytest.mark.parametrize("how, code, status, said", [
    ("VM_POWER_OFF", 0, "END_POWER_OFF", "guest power-off"),
    ("VM_EXIT_CODE", 0, "END_POWER_OFF", "guest exit 0"),
    ("VM_EXIT_CODE", 7, "END_GUEST_EXIT", "guest exit 7"),
    ("VM_REFUSED", 0, "END_REFUSED", "refused"),
    ("VM_STOP", 0, "END_GUEST_STOPPED", "guest stopped")])
def test_how_it_ends(m, how, code, status, said):
    m.start.how, m.start.exit_code = getattr(m, how), code
    m.start_runs()
    assert end(m) == (getattr(m, status), said)
