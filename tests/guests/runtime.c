/* SPDX-License-Identifier: MIT */
#include "guests/guest.h"

#include <stdarg.h>

#define COM1 0x3F8
#define EXIT_PORT 0xF4
#define BOCHS_PORT 0x8900 /* "D": the bare machine's way to end */

struct fault fault;
bool is_monocle;
u64 ram_end, low_page, ecam;
handler *handlers[256];
volatile u32 interrupts[256];

const char *only_test = "";

unsigned failures;
static const char *command_line = "";

void *memcpy(void *to, const void *from, size_t size)
{
	void *start = to;

	__asm__ volatile("rep movsb"
			 : "+D"(to), "+S"(from), "+c"(size)
			 :
			 : "memory");
	return start;
}

void *memset(void *to, int value, size_t size)
{
	void *start = to;

	__asm__ volatile("rep stosb"
			 : "+D"(to), "+c"(size)
			 : "a"(value)
			 : "memory");
	return start;
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a - *b;
}

bool starts(const char *text, const char *with)
{
	while (*with)
		if (*text++ != *with++)
			return false;
	return true;
}

/* 115200 baud, 8 bits, FIFOs. */
void console_init(void)
{
	outb(COM1 + 3, 0x80);
	outb(COM1, 1);
	outb(COM1 + 1, 0);
	outb(COM1 + 3, 3);
	outb(COM1 + 2, 1);
	outb(COM1 + 4, 3);
}

static void put(char c)
{
	while (!(inb(COM1 + 5) & 0x20))
		relax();
	outb(COM1, (u8)c);
}

static void put_number(u64 value, unsigned base)
{
	char digits[20];
	unsigned n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (n)
		put(digits[--n]);
}

void print(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	for (; *format; format++) {
		bool wide;

		if (*format != '%') {
			put(*format);
			continue;
		}
		wide = *++format == 'l';
		format += wide;
		if (*format == 's')
			for (const char *s = va_arg(ap, char *); *s; s++)
				put(*s);
		else if (*format == 'c')
			put((char)va_arg(ap, int));
		else
			put_number(wide ? va_arg(ap, u64) : va_arg(ap, u32),
				   *format == 'x' ? 16 : 10);
	}
	va_end(ap);
}

void finish(u8 status)
{
	while (!(inb(COM1 + 5) & 0x40))
		relax();
	outb(EXIT_PORT, status);
	outb(BOCHS_PORT, 'D');
	for (;;)
		__asm__ volatile("cli; hlt");
}

u64 option(const char *name, u64 otherwise)
{
	for (const char *p = command_line; *p; p++) {
		const char *at = p;
		u64 value = 0;

		for (const char *n = name; *n && *at == *n; n++)
			at++;
		if ((size_t)(at - p) == 0 || *at != '=' ||
		    (p != command_line && p[-1] != ' ') || name[at - p])
			continue;
		while (*++at >= '0' && *at <= '9')
			value = value * 10 + (u64)(*at - '0');
		return value;
	}
	return otherwise;
}

void hold(void)
{
	u64 limit = option("hold", 0), start = rdtsc();

	while (rdtsc() - start < limit && !(inb(0x64) & 1))
		relax();
}

/* Multiboot 0.6.96, 3.3: 44 mmap_length, 48 mmap_addr, 16 cmdline. */
void memory_init(u64 info)
{
	u64 at = read32(info + 48), end = at + read32(info + 44);

	command_line = (const char *)(u64)read32(info + 16);
	while (at < end) {
		const struct mmap_row *row = (const void *)at;
		u64 top = row->base + row->length;

		print("memory: %lx-%lx kind %u\n", row->base, top, row->kind);
		/* Of what is reserved there, the only thing of 1 MiB or more. */
		if (row->kind == 2 && row->base >= 16 * MIB &&
		    top - row->base >= MIB)
			ecam = row->base;
		if (row->kind == 1 && top <= BIT(32) && top > ram_end)
			ram_end = top;
		if (row->kind == 1 && row->base <= 0x70000 && top >= 0x72000)
			low_page = 0x70000;
		at += row->size + 4;
	}
}

/* -- exceptions and interrupts */

struct gate {
	u16 offset_low, selector;
	u8 ist, type;
	u16 offset_middle;
	u32 offset_high, zero;
};

extern const char stubs[];
extern u64 try_rsp;
extern const char try_return[];
int try_call(void (*f)(void *), void *arg);

extern struct gate idt[256];

void idt_load(void)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) pointer = {256 * sizeof(*idt) - 1, (u64)idt};

	__asm__ volatile("lidt %0" : : "m"(pointer));
}

void traps_init(void)
{
	for (unsigned n = 0; n < 256; n++) {
		u64 stub = (u64)stubs + 16 * n;

		idt[n] = (struct gate){
			.offset_low = (u16)stub,
			.offset_middle = (u16)(stub >> 16),
			.offset_high = (u32)(stub >> 32),
			.selector = SEL_CODE64,
			.type = n == VEC_USER_EXIT ? 0xee : 0x8e,
			.ist = n == VEC_DF    ? 1
			       : n == VEC_NMI ? 2
					      : 0,
		};
	}
	idt_load();
}

static void unexpected(const struct frame *f)
{
	print("unexpected exception %lu, error code %lx, at %lx, cr2 %lx\n",
	      f->vector, f->error, f->rip, read_cr2());
	finish(99);
}

static void eoi(u64 vector)
{
	u32 word = lapic_read(LAPIC_ISR + (unsigned)vector / 32);

	if (word >> vector % 32 & 1)
		lapic_write(LAPIC_EOI, 0);
}

void trap(struct frame *f);

/* Back behind try_call(), which returns this. */
static void leave(struct frame *f, u64 result)
{
	f->rax = result;
	f->rip = (u64)try_return;
	f->rsp = try_rsp;
	f->cs = SEL_CODE64;
	f->ss = SEL_DATA;
	f->rflags = 2;
}

void trap(struct frame *f)
{
	if (f->vector == VEC_USER_EXIT && try_rsp) {
		leave(f, ~0ull);
		return;
	}
	if (f->vector >= 32 || f->vector == VEC_NMI || handlers[f->vector]) {
		interrupts[f->vector]++;
		if (handlers[f->vector])
			handlers[f->vector](f);
		else if (f->vector >= 32)
			eoi(f->vector);
		return;
	}
	if (!try_rsp)
		unexpected(f);
	fault = (struct fault){(int)f->vector, f->error, read_cr2(), f->rip,
			       *f};
	leave(f, f->vector);
}

int user_call(void (*f)(void *), void *arg, u64 flags);

int attempt_user(void (*f)(void *), void *arg, u64 flags)
{
	fault.vector = -1;
	return user_call(f, arg, flags | 2);
}

int attempt(void (*f)(void *), void *arg)
{
	fault.vector = -1;
	return try_call(f, arg);
}

bool wait_for(unsigned vector, u32 count, u64 ticks)
{
	u64 start = rdtsc();

	while (interrupts[vector] < count && rdtsc() - start < ticks)
		open_interrupts();
	return interrupts[vector] >= count;
}

/* -- tests */

void check_at(const char *file, int line, const char *what, u64 got, u64 want)
{
	if (got == want)
		return;
	failures++;
	print("  %s:%u: %s is 0x%lx, not 0x%lx\n", file, (u32)line, what, got,
	      want);
}

unsigned run_tests(const struct test *tests, unsigned count)
{
	unsigned failed = 0;

	for (unsigned i = 0; i < count; i++) {
		if ((tests[i].monocle && !is_monocle) ||
		    (*only_test && strcmp(only_test, tests[i].name)))
			continue;
		failures = 0;
		memset((void *)interrupts, 0, sizeof(interrupts));
		memset(handlers, 0, sizeof(handlers));
		tests[i].run();
		cli();
		print("%s: %s\n", tests[i].name, failures ? "FAILED" : "ok");
		failed += failures != 0;
	}
	return failed;
}
