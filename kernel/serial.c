/* SPDX-License-Identifier: MIT */
#include "kernel/serial.h"

#include "arch/x86/io.h"

enum uart_register {
	UART_DATA = 0,
	UART_IER = 1,
	UART_FCR = 2, /* written */
	UART_IIR = 2, /* read */
	UART_LCR = 3,
	UART_MCR = 4,
	UART_LSR = 5,
	UART_SCRATCH = 7,
};

enum {
	LCR_8N1 = 0x03,
	LCR_DLAB = 0x80,
	FCR_ON_CLEAR = 0x07,
	MCR_DTR_OUT2 = 0x09, /* OUT2 gates the interrupt on a PC */
	MCR_RTS = 0x02,
	IER_RECEIVE = 0x01,
	IER_TRANSMIT = 0x02,
	IIR_NONE = 0x01,
	LSR_DATA = 0x01,
	LSR_BREAK = 0x10,
	LSR_THRE = 0x20,
	LSR_TEMT = 0x40,
	DIVISOR_115200 = 1,
	/*
	 * Reads of LSR: about 1 µs each on ISA and LPC, a byte takes 87 µs. An
	 * emulator's are faster, and whoever takes its bytes may be late.
	 */
	PATIENCE = 1000000,
	STUCK = 1000, /* once it has run out, until a byte goes */
};

static u8 read(serial_port port, enum uart_register r)
{
	if (port > 0xffff)
		return (u8)mmio_read32((const u32 *)port + r);
	return inb((u16)((unsigned)port + r));
}

static void write(serial_port port, enum uart_register r, u8 value)
{
	if (port > 0xffff)
		mmio_write32((u32 *)port + r, value);
	else
		outb((u16)((unsigned)port + r), value);
}

/* Whose next byte is a BREAK: LSR says it once, to whoever reads it. */
static serial_port broken;

static u8 line_status(serial_port port)
{
	u8 lsr = read(port, UART_LSR);

	if (lsr != 0xff && lsr & LSR_BREAK)
		broken = port;
	return lsr;
}

static bool wait(serial_port port, u8 bits)
{
	static serial_port stuck;
	int patience = port == stuck ? STUCK : PATIENCE;

	for (int i = 0; i < patience; i++) {
		u8 lsr = line_status(port);

		if (lsr == 0xff) /* nothing there */
			return false;
		if (lsr & bits) {
			stuck = port == stuck ? 0 : stuck;
			return true;
		}
		cpu_relax();
	}
	stuck = port;
	return false;
}

void serial_rts(serial_port port, bool on)
{
	write(port, UART_MCR, on ? MCR_DTR_OUT2 | MCR_RTS : MCR_DTR_OUT2);
}

void serial_drain(serial_port port)
{
	wait(port, LSR_TEMT);
}

bool serial_join(serial_port port)
{
	write(port, UART_SCRATCH, 0x5a);
	if (read(port, UART_SCRATCH) != 0x5a)
		return false;
	serial_drain(port); /* the FIFO's reset would drop it */
	write(port, UART_IER, 0);
	write(port, UART_FCR, FCR_ON_CLEAR);
	serial_rts(port, true);
	return true;
}

bool serial_init(serial_port port)
{
	if (!serial_join(port))
		return false;
	write(port, UART_LCR, LCR_DLAB);
	write(port, UART_DATA, DIVISOR_115200);
	write(port, UART_IER, 0);
	write(port, UART_LCR, LCR_8N1);
	return true;
}

bool serial_write(serial_port port, const u8 *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		/* An empty holding register means an empty FIFO. */
		if (i % SERIAL_FIFO == 0 && !wait(port, LSR_THRE))
			return false;
		write(port, UART_DATA, data[i]);
	}
	return true;
}

void serial_write_text(serial_port port, const char *text, size_t size)
{
	static const u8 cr = '\r';

	for (size_t i = 0; i < size; i++) {
		if (text[i] == '\n' && !serial_write(port, &cr, 1))
			return;
		if (!serial_write(port, (const u8 *)&text[i], 1))
			return;
	}
}

size_t serial_read(serial_port port, u8 *data, size_t size, bool *is_break)
{
	size_t n = 0;

	for (*is_break = false; n < size && !*is_break; n++) {
		u8 lsr = line_status(port);

		if (lsr == 0xff || !(lsr & LSR_DATA))
			break;
		*is_break = broken == port;
		if (*is_break)
			broken = 0;
		data[n] = read(port, UART_DATA);
	}
	return n;
}

bool serial_ready(serial_port port)
{
	u8 lsr = line_status(port);

	return lsr != 0xff && (lsr & LSR_THRE);
}

void serial_send(serial_port port, const u8 *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		write(port, UART_DATA, data[i]);
}

void serial_interrupts(serial_port port, bool transmit)
{
	write(port, UART_IER,
	      transmit ? IER_RECEIVE | IER_TRANSMIT : IER_RECEIVE);
}

bool serial_asks(serial_port port)
{
	return !(read(port, UART_IIR) & IIR_NONE);
}
