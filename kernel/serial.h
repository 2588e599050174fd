/* SPDX-License-Identifier: MIT */
/*
 * The host's 16550 UARTs (National PC16550D), polled. Every wait is bounded:
 * a machine without the port reads all ones.
 */
#ifndef KERNEL_SERIAL_H
#define KERNEL_SERIAL_H

#include "arch/x86/types.h"

enum serial_port { COM1 = 0x3f8, COM2 = 0x2f8 };

/* 115200 8N1, FIFOs on. False: no UART answers there. */
bool serial_init(enum serial_port port);
/* Drops what the UART does not take in time. */
void serial_write(enum serial_port port, const u8 *data, size_t size);
/* As above, with CR before each LF. */
void serial_write_text(enum serial_port port, const char *text, size_t size);
/*
 * Takes what has arrived, without waiting, up to a BREAK, which comes as a byte
 * of 0 and sets *is_break; returns the number of bytes.
 */
size_t serial_read(enum serial_port port, u8 *data, size_t size,
		   bool *is_break);
/* RTS: the other side may send. It may after serial_init(). */
void serial_rts(enum serial_port port, bool on);
/* Until the transmitter is empty. */
void serial_drain(enum serial_port port);
#define SERIAL_FIFO 16 /* bytes */

/* True: the transmit FIFO is empty and takes SERIAL_FIFO bytes. */
bool serial_ready(enum serial_port port);
/* At most SERIAL_FIFO bytes, after serial_ready(). */
void serial_send(enum serial_port port, const u8 *data, size_t size);
/*
 * Interrupts for received data, and with transmit also for an empty FIFO, on
 * the port's ISA line.
 */
void serial_interrupts(enum serial_port port, bool transmit);
/* Whether it has an interrupt; one for an empty FIFO ends by this question. */
bool serial_asks(enum serial_port port);

#endif
