# SPDX-License-Identifier: MIT
"""A guest's machine around the device models, for their tests.

Accesses go through the real bus and time through the real vclock; the TSC is
the fakes', and virtual interrupt lines are recorded."""

import functools

import harness

DEVICES = ["acpi_pm", "apic_bus", "fw_cfg", "i8042", "ioapic", "lapic",
           "lapic_accept", "mtrr", "pic", "pit", "reset", "rtc", "uart"]


@functools.lru_cache
def build():
    return harness.build(
        "devmodel",
        ["vmm/core/bus.c", "vmm/core/vclock.c"] +
        [f"vmm/devmodel/{name}.c" for name in DEVICES],
        headers=["kernel/log.h", "vmm/core/virq.h"] +
                [f"vmm/devmodel/{name}.h" for name in DEVICES
                 if name != "lapic_accept"],
        exports=["lapic_pending", "lapic_cr8", "lapic_set_cr8", "lapic_get",
                 "pic_pending"])


class Fault(Exception):
    """The guest gets #GP."""


class Machine:
    def __init__(self, hz=1_000_000_000, tsc=12_345_678_901):
        self.m = m = build()
        self.hz = hz
        m.tsc = tsc
        self.bus = m.new("struct bus *")
        self.clock = m.new("struct vclock *")
        m.vclock_init(self.clock, hz)
        self.lines = {}    # line: asserted
        self.edges = []    # (TSC, line): rising edges, in order
        self.called = []   # what callbacks told
        self.on_line = None
        self.set_line = m.callback("void(void *, unsigned, _Bool)",
                                   self._set_line)
        self.virq = m.new("struct virq *", {"set_line": self.set_line})
        self._keep = []

    def _set_line(self, _ctx, line, asserted):
        if asserted and not self.lines.get(line):
            self.edges.append((self.m.tsc, line))
        self.lines[line] = asserted
        if self.on_line:
            self.on_line(line, asserted)

    def note(self, what, ctype="void(void *)"):
        """A callback that notes its arguments under a name."""
        return self.m.callback(
            ctype, lambda _ctx, *args: self.called.append((what, *args)))

    def aligned(self, ctype, alignment):
        """As m.new, for a struct with an alignment of its own."""
        size = self.m.ffi.sizeof(ctype)
        memory = self.m.new("char[]", size + alignment)
        self._keep.append(memory)
        at = int(self.m.ffi.cast("uintptr_t", memory))
        return self.m.ffi.cast(f"{ctype} *", at + -at % alignment)

    # --- The guest's instructions ---

    def _dispatch(self, space, addr, size, value):
        access = self.m.new("struct bus_access *", {
            "addr": addr, "size": size, "write": value is not None,
            "value": 0xdeadbeefdeadbeef if value is None else value})
        status = self.m.bus_dispatch(self.bus, space, access)
        if status == -self.m.EFAULT:
            raise Fault(hex(addr))
        assert status == 0
        if value is None:
            assert access.value >> (8 * size) == 0, "wider than the access"
        return access.value

    def inp(self, port, size=1):
        return self._dispatch(self.m.BUS_PORT, port, size, None)

    def out(self, port, value, size=1):
        self._dispatch(self.m.BUS_PORT, port, size, value)

    def rdmsr(self, msr):
        return self._dispatch(self.m.BUS_MSR, msr, 8, None)

    def wrmsr(self, msr, value):
        self._dispatch(self.m.BUS_MSR, msr, 8, value)

    def read(self, addr, size=4):
        return self._dispatch(self.m.BUS_MMIO, addr, size, None)

    def write(self, addr, value, size=4):
        self._dispatch(self.m.BUS_MMIO, addr, size, value)

    # --- Time ---

    def until(self, tsc):
        """Lets time pass, with an exit at every deadline."""
        for _ in range(1_000_000):
            if self.clock.next > tsc:
                break
            self.m.tsc = max(self.m.tsc, self.clock.next)
            self.m.vclock_run(self.clock, self.m.tsc)
        else:
            raise AssertionError("time stands still")
        self.m.tsc = tsc

    def wait(self, ticks):
        self.until(self.m.tsc + ticks)

    def seconds(self, seconds):
        return round(seconds * self.hz)
