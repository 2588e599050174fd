/* SPDX-License-Identifier: MIT */
#include "kernel/log_sink.h"

#include "arch/x86/io.h"
#include "kernel/screen.h"
#include "kernel/serial.h"
#include "kernel/string.h"

static struct {
	unsigned sinks;
	enum log_level level;
	u64 end; /* bytes ever written */
	char ring[LOG_RING];
} log;

static void emit_e9(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		outb(0xe9, (u8)text[i]);
}

static void emit_to_sinks(const char *text, size_t length)
{
	if (log.sinks & LOG_E9)
		emit_e9(text, length);
	if (log.sinks & LOG_COM1)
		serial_write_text(COM1, text, length);
	if (log.sinks & LOG_COM2)
		serial_write_text(COM2, text, length);
	if (log.sinks & LOG_SCREEN)
		screen_write(text, length);
}

void log_emit(enum log_level level, const char *line, size_t length)
{
	for (size_t i = 0; i < length; i++)
		log.ring[log.end++ % LOG_RING] = line[i];
	if (log.sinks && level <= log.level)
		emit_to_sinks(line, length);
}

size_t log_read(u64 *from, char *buf, size_t size)
{
	size_t n = 0;

	if (log.end > LOG_RING && *from < log.end - LOG_RING)
		*from = log.end - LOG_RING;
	while (n < size && *from < log.end)
		buf[n++] = log.ring[(*from)++ % LOG_RING];
	return n;
}

void log_start(unsigned sinks, enum log_level level,
	       const struct boot_framebuffer *fb)
{
	char part[128];
	u64 from = 0;
	size_t n;

	if ((sinks & LOG_SCREEN) && !screen_init(fb))
		sinks &= ~(unsigned)LOG_SCREEN;
	if ((sinks & LOG_COM1) && !serial_init(COM1))
		sinks &= ~(unsigned)LOG_COM1;
	if ((sinks & LOG_COM2) && !serial_init(COM2))
		sinks &= ~(unsigned)LOG_COM2;
	log.sinks = sinks;
	log.level = level;
	if (level < LOG_INFO)
		return;
	while ((n = log_read(&from, part, sizeof(part))) > 0)
		emit_to_sinks(part, n);
}

void log_leave_screen(void)
{
	log.sinks &= ~(unsigned)LOG_SCREEN;
}

void log_take_screen(void)
{
	log.sinks |= LOG_SCREEN;
}

void log_drain(void)
{
	if (log.sinks & LOG_COM2)
		serial_drain(COM2);
	serial_drain(COM1);
}
