/* SPDX-License-Identifier: MIT */
/*
 * An AHCI controller's registers by its index and data ports (AHCI 1.3.1,
 * 10.14: Index/Data Pair) and by memory: a function with a BAR of ports.
 */
#include "guests/guest.h"

#define CLASS_AHCI 0x010601u
#define BAR4 0x20
#define BAR5 0x24
#define CAP_SATA 0x12
#define HBA_CAP 0x00
#define HBA_VERSION 0x10

static u32 at;
static u16 index_port, data_port;
static u64 memory;

static u32 by_ports(u32 offset)
{
	outl(index_port, offset);
	return inl(data_port);
}

static void test_find(void)
{
	unsigned cap;
	u32 where;

	for (u32 n = 0; n < 32 * 8 && !at; n++)
		if (config_read(n << 8, CONFIG_CLASS) >> 8 == CLASS_AHCI)
			at = n << 8;
	check_true(at);
	print("ahci at 00:%x.%u\n", at >> 11, at >> 8 & 7);
	config_write(at, CONFIG_COMMAND, PORTS | MEMORY);
	memory = config_read(at, BAR5) & ~0xfu;
	/* SATACR1: which BAR, and at what offset, in dwords. */
	cap = find_capability(at, CAP_SATA);
	where = cap ? config_read(at, cap + 4) : 0x48;
	check(where & 0xf, 8);
	index_port = (u16)((config_read(at, BAR4) & ~3u) +
			   (where >> 4 & 0xfffff) * 4);
	data_port = (u16)(index_port + 4);
}

static void test_registers(void)
{
	check_true(by_ports(HBA_CAP) != 0xffffffff);
	check(by_ports(HBA_CAP), read32(memory + HBA_CAP));
	check(by_ports(HBA_VERSION), read32(memory + HBA_VERSION));
}

static void accesses(u32 count)
{
	u32 wanted = read32(memory + HBA_VERSION), wrong = 0;

	for (u32 n = 0; n < count; n += 2)
		wrong |= by_ports(HBA_VERSION) ^ wanted;
	check(wrong, 0);
}

static void test_steady(void)
{
	count_exits("ports", accesses, 10000);
}

/* They cannot move, which a bitmap of ports does not do, but close. */
static void test_ports_close(void)
{
	config_write(at, CONFIG_COMMAND, MEMORY);
	check(inl(data_port), 0xffffffff);
	config_write(at, CONFIG_COMMAND, PORTS | MEMORY);
	test_registers();
}

unsigned ahci(void)
{
	static const struct test tests[] = {
		{"ahci-find", test_find, false},
		{"ahci-registers", test_registers, false},
		{"ahci-steady", test_steady, true},
		{"ahci-ports-close", test_ports_close, false},
	};
	unsigned failed = run_tests(tests, COUNT(tests));

	print("ahci: %u failed\n", failed);
	return failed;
}
