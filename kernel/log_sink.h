/* SPDX-License-Identifier: MIT */
/*
 * Where log lines go: a ring in memory (always; the guest reads it by
 * hypercall), and the sinks of the option log=. Until log_start() lines only
 * collect in the ring; log_start() then brings the sinks up to date.
 */
#ifndef KERNEL_LOG_SINK_H
#define KERNEL_LOG_SINK_H

#include "kernel/log.h"
#include "kernel/serial.h"

#define LOG_LINE 256	  /* bytes of the longest line */
#define LOG_RING 0x20000u /* bytes, a power of two */

enum log_sink {
	LOG_COM1 = 1,
	LOG_COM2 = 2,
	LOG_E9 = 4, /* the debug port of Bochs and QEMU */
	LOG_SCREEN = 8,
	LOG_PCI = 16,  /* a serial port that is a PCI function */
	LOG_UART = 32, /* the one that SPCR or DBG2 names */
};

struct boot_framebuffer;

/*
 * sinks: enum log_sink; lines above level stay in the ring alone. LOG_PCI and
 * LOG_UART wait for log_add_serial().
 */
void log_start(unsigned sinks, enum log_level level,
	       const struct boot_framebuffer *fb);
/* False: no UART answers there, or port is 0. */
bool log_add_serial(enum log_sink sink, serial_port port);
/* A copy is kept there (kernel/log_ram.h), from the first line on. */
void log_keep(void *place);
/* The screen belongs to the guest from now on. */
void log_leave_screen(void);
/*
 * A panic takes it back, when all other CPUs have been stopped: the log and its
 * UARTs are the calling CPU's alone, whoever was at them.
 */
void log_take_over(void);
/*
 * Whoever else writes to a UART that the log may be at does it between these
 * two, and logs nothing there. Any CPU logs; a line waits until the one before
 * is out.
 */
void log_lock(void);
void log_unlock(void);
/*
 * Called, where there is one, before a line for which the screen is full; it
 * calls screen_turn_page().
 */
extern void (*log_page)(void);
/* Whether that sink (enum log_sink) is in use. */
bool log_goes_to(unsigned sink);
/* One whole line with its newline. */
void log_emit(enum log_level level, const char *line, size_t length);
/*
 * Copies what the ring holds from position *from (counted from the first
 * byte ever written; moved forward if that is gone) and advances *from.
 * Returns the number of bytes.
 */
size_t log_read(u64 *from, char *buf, size_t size);
/* Waits until the UARTs have sent everything; bounded. */
void log_drain(void);

#endif
