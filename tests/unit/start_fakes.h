/* SPDX-License-Identifier: MIT */
/* What test_start.py sets and sees of start_fakes.c. */
#ifndef TESTS_UNIT_START_FAKES_H
#define TESTS_UNIT_START_FAKES_H

#include "kernel/host_irq.h"
#include "kernel/log_sink.h"
#include "kernel/panic.h"
#include "vmm/machine.h"

struct start {
	/* Set by the test; all is 0 at first. */
	char failing[32]; /* whose status is -EIO, or who finds nothing */
	struct options options;
	struct acpi_power power;
	struct acpi_mcfg mcfg;
	u32 id; /* of 00:00.0 */
	u64 apic_base;
	bool remapping, on_screen, direct;
	int index; /* of the entry for a pin */
	unsigned ecam_kind, exit_code, how, classes;
	u16 class[8];
	u32 bar; /* 0 of each function */
	bdf_t uart_at;
	u64 table_uart;
	unsigned uart_memory;
	char last[64]; /* the last start's log */
	hpa_t log_at;
	u32 info; /* the loader's, and what it says */
	u64 info_size;
	struct boot_module modules[2];
	hpa_t top; /* where free memory ends; 0: there is none */
	/* Seen. */
	struct vtd_config config;
	struct vtd_pin pin;
	serial_port uart;
	u32 command;
	u64 looked_at; /* as many bytes of the memory map */
	unsigned sinks, level, apic_id;
	int verdict;
	char notes[2048]; /* a word for each call */
	int status;	  /* how it has ended, or -1 */
	char end[64];
};

extern struct start start;

void fresh_start(void);
/* The parts of the start, up to where they end. */
const struct host *start_reads(u32 magic);
const struct host *start_takes_memory(void);
const struct host *start_runs(void);
/* What it has handed to others. */
u64 start_composes(const struct host_irq_pin *pin);
void start_powers_off(void);

#endif
