/* SPDX-License-Identifier: MIT */
/*
 * The host's 16550 UARTs (National PC16550D), polled. Every wait is bounded:
 * a machine without the port reads all ones.
 */
#ifndef KERNEL_SERIAL_H
#define KERNEL_SERIAL_H

#include "arch/x86/types.h"

/* An I/O port, or the pointer to where registers of 32 bits are mapped. */
typedef u64 serial_port;

enum { COM1 = 0x3f8, COM2 = 0x2f8 };

/* 115200 8N1, FIFOs on. False: no UART answers there. */
bool serial_init(serial_port port);
/* The same, with the line's speed and format as firmware has left them. */
bool serial_join(serial_port port);
/* False: the UART does not take it in time; the rest is dropped. */
bool serial_write(serial_port port, const u8 *data, size_t size);
/* As above, with CR before each LF. */
void serial_write_text(serial_port port, const char *text, size_t size);
/*
 * Takes what has arrived, without waiting, up to a BREAK, which comes as a byte
 * of 0 and sets *is_break; returns the number of bytes.
 */
size_t serial_read(serial_port port, u8 *data, size_t size, bool *is_break);
/* RTS: the other side may send. It may after serial_init(). */
void serial_rts(serial_port port, bool on);
/* Until the transmitter is empty. */
void serial_drain(serial_port port);
#define SERIAL_FIFO 16 /* bytes */

/* True: the transmit FIFO is empty and takes SERIAL_FIFO bytes. */
bool serial_ready(serial_port port);
/* At most SERIAL_FIFO bytes, after serial_ready(). */
void serial_send(serial_port port, const u8 *data, size_t size);
/*
 * Interrupts for received data, and with transmit also for an empty FIFO, on
 * the port's ISA line.
 */
void serial_interrupts(serial_port port, bool transmit);
/* Whether it has an interrupt; one for an empty FIFO ends by this question. */
bool serial_asks(serial_port port);

#endif
