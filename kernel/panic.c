/* SPDX-License-Identifier: MIT */
#include "kernel/panic.h"

#include "arch/x86/apic.h"
#include "arch/x86/cpu.h"
#include "arch/x86/io.h"
#include "kernel/log.h"
#include "kernel/log_sink.h"
#include "kernel/percpu.h"

#define PATIENCE 1000000 /* PAUSEs: 10 to 100 ms */

void (*panic_dump)(void);
void (*machine_power_off)(void);

static NORETURN void finish(enum end_status status, const char *text)
{
	log_drain();
	log_write(LOG_END, "end: %u %s", status, text);
	log_drain();
	/*
	 * A refusal is for somebody to read: the machine stays on. And who
	 * reads port 0xE9 ends the emulator when it has looked at the screen.
	 */
	if (machine_power_off && status != END_REFUSED && status != END_PANIC &&
	    !log_goes_to(LOG_E9))
		machine_power_off();
	cpu_stop();
}

/* Frame pointers are kept for this; a stack has a guard page at its end. */
void backtrace(u64 rbp)
{
	for (unsigned i = 0; i < 16 && rbp >= 0xffff800000000000ull; i++) {
		const u64 *frame = (const u64 *)rbp;

		if (rbp & 7 || frame[0] <= rbp)
			return;
		log_error("  called from 0x%lx", frame[1]);
		rbp = frame[0];
	}
}

static struct percpu *teller; /* the CPU that has come first */
static unsigned silent;	      /* and those that have stopped for it */
unsigned panic_others;

static NORETURN void stop(void)
{
	__atomic_fetch_add(&silent, 1, __ATOMIC_RELEASE);
	cpu_stop();
}

void panic_check(void)
{
	const struct percpu *cpu = __atomic_load_n(&teller, __ATOMIC_RELAXED);

	if (cpu && cpu != percpu())
		stop();
}

void panic_begin(void)
{
	struct percpu *nobody = NULL;

	cpu_cli();
	if (!__atomic_compare_exchange_n(&teller, &nobody, percpu(), false,
					 __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		stop();
	if (panic_others)
		(void)local_apic_send(0, APIC_ICR_NMI | APIC_ICR_OTHERS);
	for (int i = 0; i < PATIENCE; i++) {
		if (__atomic_load_n(&silent, __ATOMIC_ACQUIRE) >= panic_others)
			break;
		cpu_relax();
	}
	log_take_over();
}

static NORETURN void dump_and_finish(void)
{
	backtrace((u64)__builtin_frame_address(0));
	if (panic_dump)
		panic_dump();
	finish(END_PANIC, "panic");
}

void panic_end(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vwrite(LOG_ERROR, fmt, ap);
	va_end(ap);
	dump_and_finish();
}

void panic(const char *fmt, ...)
{
	va_list ap;

	panic_begin();
	va_start(ap, fmt);
	log_vwrite(LOG_ERROR, fmt, ap);
	va_end(ap);
	dump_and_finish();
}

void end(enum end_status status, const char *fmt, ...)
{
	char text[LOG_LINE];
	va_list ap;

	va_start(ap, fmt);
	vformat(text, sizeof(text), fmt, ap);
	va_end(ap);
	finish(status, text);
}
