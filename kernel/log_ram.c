/* SPDX-License-Identifier: MIT */
#include "kernel/log_ram.h"

#include "arch/x86/io.h"
#include "kernel/log_sink.h"

#define SIGNATURE 0x31474f4c4e4f4d21ull /* "!MONLOG1" */
/*
 * So much of the text is in the sum. The rest is the oldest line's room: the
 * next line is written there while end and sum do not tell of it yet.
 */
#define WINDOW (LOG_RING - LOG_LINE)

/* In a cache line of its own: memory has the old one or the new one. */
struct log_ram {
	u64 signature;
	u64 end; /* bytes ever written */
	u64 sum; /* of the last WINDOW of them */
	u64 unused[5];
	char text[LOG_RING];
};

_Static_assert(sizeof(struct log_ram) <= LOG_RAM_SIZE, "the pages' size");

static struct log_ram *ram;

/* By its position, so that two that change places are noticed. */
static u64 part(const struct log_ram *r, u64 at)
{
	return (at + 1) * (u8)r->text[at % LOG_RING];
}

void log_ram_last(const void *place, char *to, size_t size)
{
	const struct log_ram *r = place;
	u64 end = r->end, sum = 0;

	*to = 0;
	if (r->signature != SIGNATURE)
		return;
	for (u64 at = end - MIN(end, (u64)WINDOW); at < end; at++)
		sum += part(r, at);
	if (r->sum != sum)
		return;
	for (u64 at = end - MIN(end, size - 1); at < end; at++)
		*to++ = r->text[at % LOG_RING];
	*to = 0;
}

/*
 * A reset drops what only the caches have. That is not to be seen in an
 * emulator, whose memory is always up to date.
 */
static void write_back(const volatile void *p)
{
	clflush(p);
	mfence();
}

void log_ram_start(void *place)
{
	ram = place;
	ram->end = ram->sum = 0;
	ram->signature = SIGNATURE;
	write_back(ram);
}

void log_ram_write(const char *text, size_t length)
{
	u64 end, sum;

	if (!ram)
		return;
	end = ram->end;
	sum = ram->sum;
	for (size_t i = 0; i < length; i++, end++) {
		if (end >= WINDOW)
			sum -= part(ram, end - WINDOW);
		ram->text[end % LOG_RING] = text[i];
		sum += part(ram, end);
		/* The last byte of a cache line, or of all. */
		if (i + 1 == length || end % 64 == 63)
			write_back(&ram->text[end % LOG_RING]);
	}
	ram->end = end;
	ram->sum = sum;
	write_back(ram);
}
