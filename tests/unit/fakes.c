/* SPDX-License-Identifier: MIT */
/*
 * Stands in for the machine and the log in host builds. All functions are
 * weak: a test's own fakes, or the real file among its sources, replace them.
 * harness.Module wraps what is here; see tests/unit/harness.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86/io.h"
#include "kernel/log_sink.h"
#include "kernel/panic.h"
#include "tests/unit/fakes.h"

#define WEAK __attribute__((weak))

struct fake_event fakes_events[FAKES_EVENTS];
unsigned fakes_event_count;
struct fake_line fakes_lines[FAKES_LINES];
unsigned fakes_line_count;
u64 fakes_tsc;
u64 fakes_relax_ticks = 1000;
bool (*fakes_read_hook)(enum fake_kind kind, u64 addr, unsigned size,
			u64 *value);
void (*fakes_write_hook)(enum fake_kind kind, u64 addr, unsigned size,
			 u64 value);

void fakes_reset(void)
{
	fakes_event_count = 0;
	fakes_line_count = 0;
	fakes_tsc = 0;
	fakes_relax_ticks = 1000;
	fakes_read_hook = NULL;
	fakes_write_hook = NULL;
}

void fake_gs_base(void *base)
{
	int arch_prctl(int code, unsigned long address); /* libc's */

	if (arch_prctl(0x1001 /* ARCH_SET_GS */, (unsigned long)base))
		abort();
}

void *fakes_alloc(size_t size)
{
	void *p = NULL;

	return posix_memalign(&p, 64, size) ? NULL : p; /* a cache line */
}

void fakes_free(void *p)
{
	free(p);
}

void fakes_record(enum fake_kind kind, u64 addr, unsigned size, u64 value)
{
	if (fakes_event_count < FAKES_EVENTS)
		fakes_events[fakes_event_count] =
			(struct fake_event){kind, size, addr, value};
	fakes_event_count++;
}

static u64 read_value(enum fake_kind kind, u64 addr, unsigned size, u64 value)
{
	if (fakes_read_hook)
		fakes_read_hook(kind, addr, size, &value);
	fakes_record(kind, addr, size, value);
	return value;
}

static void write_value(enum fake_kind kind, u64 addr, unsigned size, u64 value)
{
	fakes_record(kind, addr, size, value);
	if (fakes_write_hook)
		fakes_write_hook(kind, addr, size, value);
}

#define PORT(suffix, type)                                           \
	WEAK type in##suffix(u16 port)                               \
	{                                                            \
		return (type)read_value(FAKE_IN, port, sizeof(type), \
					(type)~0ull);                \
	}                                                            \
	WEAK void out##suffix(u16 port, type value)                  \
	{                                                            \
		write_value(FAKE_OUT, port, sizeof(type), value);    \
	}

PORT(b, u8)
PORT(w, u16)
PORT(l, u32)

/* The memory at p is the device's unless the hooks answer for it. */
#define MMIO(bits)                                                       \
	WEAK u##bits mmio_read##bits(const volatile void *p)             \
	{                                                                \
		u64 value = 0;                                           \
		u64 addr = (u64)(uintptr_t)p;                            \
                                                                         \
		if (!fakes_read_hook ||                                  \
		    !fakes_read_hook(FAKE_READ, addr, bits / 8, &value)) \
			value = *(const volatile u##bits *)p;            \
		fakes_record(FAKE_READ, addr, bits / 8, (u##bits)value); \
		return (u##bits)value;                                   \
	}                                                                \
	WEAK void mmio_write##bits(volatile void *p, u##bits value)      \
	{                                                                \
		u64 addr = (u64)(uintptr_t)p;                            \
                                                                         \
		if (!fakes_write_hook)                                   \
			*(volatile u##bits *)p = value;                  \
		write_value(FAKE_WRITE, addr, bits / 8, value);          \
	}

MMIO(8)
MMIO(16)
MMIO(32)
MMIO(64)

WEAK u64 rdtsc(void)
{
	return fakes_tsc;
}

WEAK void clflush(const volatile void *p)
{
	fakes_record(FAKE_CLFLUSH, (u64)(uintptr_t)p, 0, 0);
}

WEAK void sfence(void)
{
	fakes_record(FAKE_SFENCE, 0, 0, 0);
}

WEAK void mfence(void)
{
	fakes_record(FAKE_MFENCE, 0, 0, 0);
}

WEAK void lfence(void)
{
}

/* Time passes only while somebody waits: every bounded wait comes to an end. */
WEAK void cpu_relax(void)
{
	fakes_tsc += fakes_relax_ticks;
}

WEAK void log_vwrite(enum log_level level, const char *fmt, va_list ap)
{
	struct fake_line *line;

	if (fakes_line_count == FAKES_LINES)
		abort();
	line = &fakes_lines[fakes_line_count++];
	line->level = (int)level;
	vsnprintf(line->text, sizeof(line->text), fmt, ap);
}

WEAK void log_write(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vwrite(level, fmt, ap);
	va_end(ap);
}

WEAK void log_lock(void)
{
}

WEAK void log_unlock(void)
{
}

/* kernel/log.c has the real one; its subset of printf is libc's too. */
WEAK int vformat(char *buf, size_t size, const char *fmt, va_list ap)
{
	return vsnprintf(buf, size, fmt, ap);
}

WEAK int format(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int length;

	va_start(ap, fmt);
	length = vformat(buf, size, fmt, ap);
	va_end(ap);
	return length;
}

/* For those who do not expect it. */
WEAK NORETURN void panic(const char *fmt, ...)
{
	fprintf(stderr, "panic: %s\n", fmt);
	abort();
}
