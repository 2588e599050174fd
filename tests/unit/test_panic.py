# SPDX-License-Identifier: MIT
"""Panic, backtrace, and the log's last line."""

import pytest

import harness
import vmxcpu

FAKES = """
#include "tests/unit/vmx_fakes.c"
#include "kernel/log_sink.h"
#include "kernel/panic.h"
#include "kernel/percpu.h"

u64 stack_lowest;
unsigned screens, drained, sinks;
static struct percpu cpus[4];
static unsigned asked; /* CPUs that an NMI has stopped */
static bool sent;
unsigned deaf, stopped_before;

/* Which CPU runs from here on. */
void on_cpu(unsigned n)
{
	fake_gs_base(&cpus[n]);
	cpus[n].self = &cpus[n];
}

extern struct percpu *teller;
extern unsigned silent;

/* As if there had been no panic. */
void forget(void)
{
	teller = NULL;
	silent = asked = stopped_before = panic_others = 0;
}

bool nmi_stops(void)
{
	return STOPS(panic_check());
}

int local_apic_send(u32 apic_id, u32 low)
{
	(void)apic_id;
	fakes_record(FAKE_OTHER, low, 0, fakes_line_count);
	sent = true;
	return 0;
}

/* All but this one, and those that are deaf, take it while this one waits. */
void cpu_relax(void)
{
	jmp_buf here;

	if (!sent)
		return;
	sent = false;
	memcpy(here, stopped, sizeof(here));
	for (unsigned n = 1; n + deaf <= panic_others; n++) {
		on_cpu(n);
		asked += nmi_stops();
	}
	memcpy(stopped, here, sizeof(here));
	on_cpu(0);
}

void log_take_over(void)
{
	screens++;
	stopped_before = asked;
}

void log_drain(void)
{
	drained = fakes_line_count;
}

bool log_goes_to(unsigned sink)
{
	return sinks & sink;
}

bool panics(void)
{
	return STOPS(panic("a %s of %u", "lack", 7u));
}

bool ends(enum end_status status)
{
	return STOPS(end(status, "for %u reasons", 3u));
}
"""
NOT_LIBC = ["backtrace=own_backtrace"]
CDEF = """
extern u64 stack_lowest;
extern unsigned screens, drained, sinks, deaf, stopped_before;
void on_cpu(unsigned n);
void forget(void);
bool nmi_stops(void);
bool panics(void);
bool ends(enum end_status status);
"""


def source():
    """As it is, but that a stack of the host's may be walked, and a panic be
    forgotten."""
    text = (harness.ROOT / "kernel/panic.c").read_text()
    lowest = "0xffff800000000000ull"
    assert text.count(lowest) == 1
    text = text.replace("static struct percpu *teller", "struct percpu *teller")
    text = text.replace("static unsigned silent", "unsigned silent")
    return harness._file_of_text(
        "#include \"arch/x86/types.h\"\nextern u64 stack_lowest;\n" +
        text.replace(lowest, "stack_lowest"), "panic")


@pytest.fixture(scope="module")
def m():
    return harness.build("panic", [source()], headers=[
        "kernel/panic.h", "kernel/log_sink.h", *vmxcpu.HEADERS], fakes=FAKES,
        cdef=CDEF, defines=NOT_LIBC)


@pytest.fixture
def power_off(m):
    """Calls of it: how many lines there were, how many were sent."""
    calls = []
    m.lib.panic_dump = m.NULL
    m.lib.machine_power_off = m.callback(
        "void(*)(void)",
        lambda: calls.append((len(m.log_lines()), m.drained)))
    m.lib.sinks = m.lib.screens = m.lib.drained = 0
    m.lib.stack_lowest = 2**64 - 1
    m.forget()
    m.on_cpu(0)
    return calls


@pytest.mark.parametrize("status, goes_off", [
    ("POWER_OFF", True), ("GUEST_EXIT", True), ("GUEST_STOPPED", True),
    ("REFUSED", False)])
def test_the_end(m, power_off, status, goes_off):
    """The last line has been sent before the power goes; a refusal stays."""
    status = getattr(m, f"END_{status}")
    assert m.ends(status)
    assert m.log_lines() == [(m.LOG_END, f"end: {status} for 3 reasons")]
    assert power_off == [(1, 1)] * goes_off and m.drained == 1


def test_nobody_switches_off(m, power_off):
    """Who reads port 0xE9 ends the emulator; some machines cannot."""
    m.lib.sinks = m.LOG_COM1 | m.LOG_COM2 | m.LOG_SCREEN
    assert m.ends(m.END_POWER_OFF) and len(power_off) == 1
    m.lib.sinks = m.LOG_E9
    assert m.ends(m.END_POWER_OFF) and len(power_off) == 1
    m.lib.sinks, m.lib.machine_power_off = 0, m.NULL
    assert m.ends(m.END_POWER_OFF)


def test_backtrace(m, power_off):
    """Frame by frame, and no further than the chain can be trusted."""
    stack = m.new("u64[]", 60)
    at = int(m.ffi.cast("uintptr_t", stack))
    m.lib.stack_lowest = at

    def called(*chain, start=0):
        m.lib.fakes_line_count = 0
        for n, frame in enumerate(chain):
            stack[2 * n], stack[2 * n + 1] = frame
        m.own_backtrace(at + start)
        return [int(text.split()[-1], 16) for _, text in m.log_lines()]
    up = [(at + 16 * n + 16, 0x1000 + n) for n in range(20)]
    assert called((at + 16, 0x77), (0, 0x88)) == [0x77]
    assert called((at + 16, 0x77), (at + 16, 0x88)) == [0x77]    # a loop
    assert called((at + 16, 0x77), (at, 0x88)) == [0x77]
    assert called((at + 20, 0x77), (0, 0)) == [0x77]
    assert called(*up) == [0x1000 + n for n in range(16)]
    assert called(*up, start=4) == []
    m.lib.stack_lowest = at + 1
    assert called(*up) == []


@pytest.mark.parametrize("others, deaf", [(0, 0), (3, 0), (3, 1)])
def test_panic(m, power_off, others, deaf):
    """Once: what is wrong, what others know, the last line; the machine stays
    on, for somebody to read. All other CPUs stop before the first line."""
    m.lib.panic_others, m.lib.deaf = others, deaf
    dumped = []
    m.lib.panic_dump = m.callback("void(*)(void)",
                                  lambda: dumped.append(m.log_text()))
    m.lib.stack_lowest = 2**64 - 1
    assert not m.nmi_stops(), "the guest's own NMI"
    assert m.panics()
    assert [e.kind for e in m.events()][0] == "cli"
    # NMI to all but this one (SDM figure 10-12), if there is any.
    assert [(e.addr, e.value) for e in m.events("other")] == [
        (0xc4400, 0)] * bool(others)
    assert m.stopped_before == others - deaf
    assert dumped == ["a lack of 7"] and m.screens == 1
    assert m.log_lines() == [(m.LOG_ERROR, "a lack of 7"),
                             (m.LOG_END, "end: 5 panic")]
    assert m.drained == 2 and power_off == []
    assert not m.nmi_stops(), "an NMI of the one that tells"
    # One in the panic itself, or of another CPU: silence.
    for cpu in range(2):
        m.on_cpu(cpu)
        assert m.panics() and len(m.log_lines()) == 2 and len(dumped) == 1
