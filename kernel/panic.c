/* SPDX-License-Identifier: MIT */
#include "kernel/panic.h"

#include "arch/x86/cpu.h"
#include "kernel/log.h"
#include "kernel/log_sink.h"

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

void panic(const char *fmt, ...)
{
	static bool again;
	va_list ap;

	cpu_cli();
	if (again)
		cpu_stop();
	again = true;
	log_take_over();
	va_start(ap, fmt);
	log_vwrite(LOG_ERROR, fmt, ap);
	va_end(ap);
	backtrace((u64)__builtin_frame_address(0));
	if (panic_dump)
		panic_dump();
	finish(END_PANIC, "panic");
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
