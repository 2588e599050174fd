/* SPDX-License-Identifier: MIT */
/*
 * The command line's first word:
 *	exits		every kind of exit, each result checked
 *	exits NAME	one test of these
 *	draw-WHAT	pictures, see draw.c
 *	hostile-WHAT	what no guest should do, see hostile.c
 *	switches	hardware task switches, see switch.asm
 *	rom		the display's option ROM, see rom.c
 *	resets		each way to reset, then an exit with status 0
 *	state		what of the CPU a reset leaves, see state.c
 *	bench		ticks of single exits
 *	latency		ticks from an event to its handler; pin=N: an e1000's
 *	latency-msi	... of an edu
 *	chain		starts the module on the bare machine, see chain.c
 *	edu		drives QEMU's edu, see edu.c; hold=TICKS, see guest.h
 *	edu-resets	resets in the middle of a transfer, see edu.c; count=N
 *	edu-parked	... whose neighbours are not the guest's, see edu.c
 *	edu-own		DMA at Monocle's own memory, see edu.c
 *	edu-igd		... where Intel graphics has its memory, see edu.c, vga.c
 *	ahci		reads an AHCI controller by ports, to count exits
 *	windows		the display's memory by hypercall, see windows.c
 *	windows-igd	... that of Intel graphics
 *	e1000		drives the interrupt line of one, see e1000.c
 *	igd		looks at Intel graphics, see igd.c; accesses=N
 *	storm-resets	each CPU resets, see storm.c
 *	storm-echo	ticks of an IPI and its answer; rounds=N
 *	storm-line	an e1000's, aimed at each CPU in turn; pin=N count=N
 *	storm		among all CPUs, see storm.c; cpus=N seed=N seeds=N
 *	exit status=N	nothing else
 */
#include "guests/guest.h"

#define MULTIBOOT_MAGIC 0x2BADB002

void guest_main(u32 magic, u64 info);

static u8 exits(void)
{
	unsigned failed = run_tests(cpu_tests, cpu_test_count);

	failed += run_tests(port_tests, port_test_count);
	failed += run_tests(memory_tests, memory_test_count);
	failed += run_tests(vga_tests, vga_test_count);
	failed += run_tests(mode_tests, mode_test_count);
	failed += run_tests(user_tests, user_test_count);
	failed += run_tests(apic_tests, apic_test_count);
	print("exits: %u failed\n", failed);
	return (u8)(failed ? 1 : 0);
}

void guest_main(u32 magic, u64 info)
{
	const char *line = (const char *)(u64)read32(info + 16);

	if (starts(line, "kernel "))
		line += 7; /* a loader other than GRUB 2 */
	console_init();
	traps_init();
	is_monocle = cpuid(0x40000000, 0).ebx == 0x6f6e6f4d; /* "Mono" */
	print("guest: %s on %s\n", line, is_monocle ? "Monocle" : "bare metal");
	if (magic != MULTIBOOT_MAGIC)
		finish(98);
	memory_init(info);
	pics_off();
	lapic_on();
	if (starts(line, "exits ")) {
		only_test = line + 6;
		finish(exits());
	}
	if (starts(line, "exits"))
		finish(exits());
	else if (starts(line, "draw-"))
		draw(line + 5);
	else if (starts(line, "hostile-"))
		hostile(line + 8);
	else if (starts(line, "switches"))
		finish(task_switches());
	else if (starts(line, "rom"))
		finish(rom());
	else if (starts(line, "resets"))
		resets();
	else if (starts(line, "state"))
		state();
	else if (starts(line, "bench"))
		bench();
	else if (starts(line, "latency-msi"))
		latency_msi();
	else if (starts(line, "latency"))
		latency();
	else if (starts(line, "timers"))
		timers();
	else if (starts(line, "chain"))
		chain(info);
	else if (starts(line, "edu-resets"))
		edu_resets();
	else if (starts(line, "edu-parked"))
		finish((u8)edu_parked());
	else if (starts(line, "edu-own"))
		finish((u8)edu_own());
	else if (starts(line, "edu-igd"))
		finish((u8)edu_igd());
	else if (starts(line, "edu"))
		finish((u8)edu());
	else if (starts(line, "ahci"))
		finish((u8)ahci());
	else if (starts(line, "windows-igd"))
		finish(windows_igd());
	else if (starts(line, "windows"))
		windows();
	else if (starts(line, "e1000"))
		finish((u8)e1000());
	else if (starts(line, "igd"))
		finish((u8)igd());
	else if (starts(line, "storm-resets"))
		storm_resets();
	else if (starts(line, "storm-echo"))
		storm_echo();
	else if (starts(line, "storm-line"))
		storm_line();
	else if (starts(line, "storm"))
		finish(storm());
	else if (starts(line, "exit"))
		finish((u8)option("status", 0));
	print("guest: %s: not known\n", line);
	finish(97);
}
