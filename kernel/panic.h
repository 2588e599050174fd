/* SPDX-License-Identifier: MIT */
/*
 * The end. panic() is for a broken invariant of Monocle itself; end() is the
 * one way out that a user sees: its line is the log's last.
 */
#ifndef KERNEL_PANIC_H
#define KERNEL_PANIC_H

#include "arch/x86/types.h"

/* What tools/boot returns. */
enum end_status {
	END_POWER_OFF = 0,
	END_GUEST_EXIT = 10, /* the guest wrote a value to port 0xF4 */
	END_GUEST_STOPPED = 3,
	END_REFUSED = 4,
	END_PANIC = 5,
};

/* Registered by who knows more about the state: called once by panic(). */
extern void (*panic_dump)(void);
/* Powers the machine off; returns where it cannot. */
extern void (*machine_power_off)(void);

NORETURN void panic(const char *fmt, ...) PRINTF(1, 2);
/* CPUs besides the first one that have come up: a panic stops them. */
extern unsigned panic_others;
/*
 * The same in two steps, for who has something to log before it: all other CPUs
 * are stopped by an NMI (bounded), and the log is the caller's. Does not return
 * to a CPU that comes second, nor from a fault on the way to the end.
 */
void panic_begin(void);
NORETURN void panic_end(const char *fmt, ...) PRINTF(1, 2);
/* Each NMI's handler: does not return where another CPU has sent it to stop. */
void panic_check(void);
/* Logs "end: STATUS text", drains the log, powers off or halts. */
NORETURN void end(enum end_status status, const char *fmt, ...) PRINTF(2, 3);
void backtrace(u64 rbp);

#endif
