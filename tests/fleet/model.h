/* SPDX-License-Identifier: MIT */
/*
 * A machine on paper: physical memory, configuration space, remapping units,
 * I/O APICs, ports, MSRs, CPUID, and a clock that waiting moves.
 * tests/fleet/fleet.c reads one file into it and starts Monocle on it.
 */
#ifndef TESTS_FLEET_MODEL_H
#define TESTS_FLEET_MODEL_H

#include "arch/x86/types.h"

#define SPACE BIT(46) /* what Monocle's direct map may reach */
#define MODEL_ROWS 512

struct model_row {
	u64 base, size;
	u32 kind, zero; /* as Multiboot2 has them */
};

struct model_table {
	u64 at;
	u32 length;
	char signature[5];
};

struct model_function {
	u8 config[4096], mask[4096], was[4096];
};

struct model {
	u8 *space; /* a mapping of the file that holds physical memory */
	u64 ecam, ecam_size;
	unsigned row_count, table_count;
	struct model_row rows[MODEL_ROWS];
	struct model_table tables[MODEL_ROWS];
	struct model_function *functions[0x10000]; /* by BDF; NULL: none */
	u64 fb[5];				   /* base, pitch, w, h, bpp */
	u64 tsc_hz;				   /* 0: as CPUID has it */
	bool pit_stopped, pm_timer_stopped;
	bool tell_ports; /* what is written to them, from now on */
	u64 image;	 /* where Monocle lies */
};

extern struct model model;

/* Physical memory from a file descriptor, all zero. */
void model_open(int fd);
void model_cpuid(u32 leaf, u32 subleaf, const u64 r[4]);
void model_msr(u32 number, u64 value);
void model_unit(u64 base, u64 cap, u64 ecap, u32 status);
void model_stuck(u64 base);
/* Configuration space of a function that may be new; its masks follow. */
struct model_function *model_function(unsigned bdf);
/* All statements are there: derives the rest, and notes the state. */
void model_finish(void);
bool model_is_ram(u64 hpa);
struct model_table *model_table(const char *signature);

/* What a message that a function sends would do: NULL, or what is wrong. */
const char *model_message(u64 address);
/* Calls back for each thing that is not as model_finish() found it. */
void model_changes(void (*tell)(const char *what));

/* Pages that Monocle allocated for itself and did not give back. */
void model_own_pages(void (*tell)(u64 base, u64 size));

#endif
