/* SPDX-License-Identifier: MIT */
/*
 * The guest's COM1 on the host's: what the guest sends waits in a ring that
 * the host UART's interrupt empties, so that no exit waits for the line; what
 * arrives goes to the guest's UART, whose RTS is the host's.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include "vmm/devmodel/uart.h"

#define CONSOLE_RING 16384u /* bytes, a power of two */

struct console {
	struct uart *uart;
	bool present; /* the host has a COM1 */
	bool sending; /* the host's transmit interrupt is on */
	u32 head, tail;
	u8 ring[CONSOLE_RING];
};

/* The UART's put callback; waits (bounded) only where the ring is full. */
void console_put(void *console, const u8 *bytes, size_t n);
/* The UART's set_rts callback. */
void console_rts(void *console, bool on);
/* The host UART's interrupt. */
void console_interrupt(void *console, unsigned vector);
/* Sends what is left; bounded. */
void console_flush(struct console *c);

#endif
