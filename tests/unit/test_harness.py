# SPDX-License-Identifier: MIT
"""The harness itself: headers of every kind, fakes, and reports that bite."""

import os
import subprocess
import sys

import pytest

import harness

HEADER = r"""
#include "arch/x86/io.h"
#include "kernel/log.h"
#define CELLS (1u << 4)
#define TEXT "not a number"
#define EVERY (~0ull)
#define PAGES ((u64)5 << PAGE_SHIFT)
enum { FIRST = BIT(3), SECOND, WIDTH = sizeof(u64) };
typedef enum { ONE = 1, TWO } number_t;
struct opaque;
struct bits { u32 low : 3; u32 high : 29; u8 tail; } PACKED;
_Static_assert(sizeof(struct bits) == 5, "manual 1.2");
struct __attribute__((packed)) row { u8 a; u64 b; u16 c[CELLS]; };
struct page { u8 a[3]; u64 b __attribute__((aligned(32))); }
	__attribute__((aligned(4096)));
struct device {
	union { u64 raw; struct { u32 lo, hi; }; };
	struct { u8 x; u16 y; } named[SECOND];
	u8 two[FIRST][sizeof(struct row)];
	struct opaque *owner;
	number_t number;
	volatile u32 *regs;
	int (*hook)(struct device *d, u64 b[4]);
	u8 rest[];
};
typedef int visit_t(void *, const struct device *);
static const u8 table[] = { 1, 2, 3 };
extern const struct row rows[2];
NORETURN void never(const char *fmt, ...) PRINTF(1, 2);
int with_list(const char *fmt, va_list ap);
static inline u64 twice(u64 x)
{
	return x + x * table[0] * (u64)('{' == 123);
}
struct device *touch(struct device *restrict d, visit_t *visit);
u32 overflow(const u8 *p, u32 at);
int shift(int by);
int poke(volatile u32 *reg);
"""

SOURCE = r"""
const struct row rows[2] = { { 1, 2, { 3 } } };

struct device *touch(struct device *restrict d, visit_t *visit)
{
	d->lo = (u32)visit(NULL, d);
	return d;
}

u32 overflow(const u8 *p, u32 at) { return p[at]; }
int shift(int by) { return 1 << by; }

int poke(volatile u32 *reg)
{
	outb(0x80, 7);
	mmio_write32(reg, mmio_read32(reg) | 1);
	sfence();
	clflush((const void *)reg);
	log_info("read %u", inb(0x60));
	while (rdtsc() < 5000)
		cpu_relax();
	return 0;
}
"""


@pytest.fixture(scope="module")
def m(tmp_path_factory):
    folder = tmp_path_factory.mktemp("headers")
    (folder / "kinds.h").write_text("#pragma once\n" + HEADER)
    return harness.build("kinds", [], headers=[str(folder / "kinds.h")],
                         fakes=HEADER + SOURCE, exports=["twice"])


def test_layout_is_the_compilers(m):
    size = m.ffi.sizeof
    assert size("struct bits") == 5
    assert size("struct row") == 1 + 8 + 32
    assert size("struct page") == 4096
    assert m.ffi.offsetof("struct page", "b") == 32
    device = m.new("struct device *")
    device.raw = 7 << 32
    assert device.hi == 7
    assert len(device.named) == 9
    assert len(device.two) == 8 and len(device.two[0]) == size("struct row")
    bits = m.new("struct bits *")
    bits.high, bits.tail = 77, 1
    assert m.ffi.buffer(bits)[:] == (77 << 3).to_bytes(4, "little") + b"\1"


def test_constants_variables_and_inlines(m):
    assert (m.CELLS, m.EVERY, m.PAGES) == (16, 2**64 - 1, 5 * 4096)
    assert (m.FIRST, m.SECOND, m.WIDTH, m.TWO) == (8, 9, 8, 2)
    assert not hasattr(m, "TEXT")
    assert m.rows[0].b == 2
    assert m.twice(21) == 42


def test_exception_in_a_callback_is_not_lost(m):
    def broken(_ctx, _device):
        raise KeyError("in the callback")
    device = m.new("struct device *")
    assert m.touch(device, m.callback("visit_t *", broken, 9)).lo == 9
    with pytest.raises(KeyError):
        m.check()


def test_fakes_record_in_order(m):
    reg = m.new("u32[1]", [4])
    address = int(m.ffi.cast("uintptr_t", reg))
    m.on_read(lambda kind, addr, size: 0x1d if kind == "in" else None)
    m.poke(reg)
    assert reg[0] == 5
    assert m.events() == [
        ("out", 0x80, 1, 7), ("read", address, 4, 4),
        ("write", address, 4, 5), ("sfence", 0, 0, 0),
        ("clflush", address, 0, 0), ("in", 0x60, 1, 0x1d)]
    assert m.log_lines() == [(m.LOG_INFO, "read 29")]
    assert m.tsc >= 5000


def test_missing_symbol_is_named():
    with pytest.raises(harness.BuildError, match="log_ring_of_nobody"):
        harness.build("missing", [], headers=[], cdef="int f(void);", fakes=(
            "int log_ring_of_nobody(void);\nint f(void);\n"
            "int f(void) { return log_ring_of_nobody(); }\n"))


def test_warnings_are_errors(tmp_path):
    source = tmp_path / "careless.c"
    source.write_text("unsigned char f(int x) { return x; }\n")
    with pytest.raises(harness.BuildError, match="conversion"):
        harness.build("careless", [str(source)])


BREAKS = {
    "overflow": lambda m: m.overflow(m.new("u8[8]"), 8),
    "shift": lambda m: m.shift(32),
}


@pytest.mark.skipif("MONOCLE_BREAK" not in os.environ,
                    reason="started by the test below")
def test_broken(m):
    BREAKS[os.environ["MONOCLE_BREAK"]](m)


@pytest.mark.parametrize("what, said", [
    ("overflow", "heap-buffer-overflow"), ("shift", "shift exponent 32")])
def test_report_fails_the_run(what, said):
    env = {**os.environ, "MONOCLE_BREAK": what}
    for name in ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS"):
        env.pop(name, None)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         f"{__file__}::test_broken"], env=env, text=True,
        capture_output=True, check=False, timeout=60)
    assert run.returncode != 0
    assert said in run.stderr
    assert "test_broken" in run.stderr
