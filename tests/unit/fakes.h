/* SPDX-License-Identifier: MIT */
/* What fakes.c records; for a test's own fakes in C, and for the harness. */
#ifndef TESTS_UNIT_FAKES_H
#define TESTS_UNIT_FAKES_H

#include "arch/x86/types.h"

#define FAKES_EVENTS 65536
#define FAKES_LINES 4096
#define FAKES_TEXT 240

enum fake_kind {
	FAKE_IN,
	FAKE_OUT,
	FAKE_READ,
	FAKE_WRITE,
	FAKE_CLFLUSH,
	FAKE_SFENCE,
	FAKE_MFENCE,
	FAKE_OTHER, /* and above: a test's own kinds */
};

struct fake_event {
	int kind;
	unsigned size; /* bytes; 0: no access */
	u64 addr;      /* port, or the pointer as a number */
	u64 value;
};

struct fake_line {
	int level;
	char text[FAKES_TEXT];
};

extern struct fake_event fakes_events[FAKES_EVENTS];
extern unsigned fakes_event_count;
extern struct fake_line fakes_lines[FAKES_LINES];
extern unsigned fakes_line_count;
extern u64 fakes_tsc;
extern u64 fakes_relax_ticks;
/* Sets *value and returns true, or false: the default. */
extern bool (*fakes_read_hook)(enum fake_kind kind, u64 addr, unsigned size,
			       u64 *value);
extern void (*fakes_write_hook)(enum fake_kind kind, u64 addr, unsigned size,
				u64 value);

void fakes_reset(void);
void fakes_record(enum fake_kind kind, u64 addr, unsigned size, u64 value);
/* What percpu() reads; GS is nobody's in a process of the host. */
void fake_gs_base(void *base);
void *fakes_alloc(size_t size);
void fakes_free(void *p);

#endif
