/* SPDX-License-Identifier: MIT */
/*
 * What a driver of Intel graphics looks at, at 00:02.0 and the two bridges:
 * printed, and what must hold checked. The tests compare the numbers with
 * what they gave to the firmware, and with what the device saw.
 */
#include "guests/guest.h"

enum {
	BRIDGE = 0,
	IGD = 2 << 11,
	PCH = 31 << 11,
	GGC = 0x50,
	BDSM = 0x5c,
	BDSM_WIDE = 0xc0,
	SWSCI = 0xe8,
	ASLS = 0xfc,
	SCRATCH = 0x4f100, /* SWF: software's own */
	PATTERN = 0x4d6f6e6f,
};

static u64 bar0(void)
{
	return config_read(IGD, CONFIG_BAR0) & ~0xfu;
}

static void show(const char *name, u32 function)
{
	print("igd: %s %x class %x subsystem %x\n", name,
	      config_read(function, 0), config_read(function, CONFIG_CLASS),
	      config_read(function, CONFIG_SUBSYSTEM));
}

static void test_identity(void)
{
	show("host", BRIDGE);
	show("graphics", IGD);
	show("pch", PCH);
	print("igd: ggc %x bdsm %x %x asls %x bridge 50 %x 54 %x\n",
	      config_read(IGD, GGC) & 0xffff, config_read(IGD, BDSM),
	      config_read(IGD, BDSM_WIDE), config_read(IGD, ASLS),
	      config_read(BRIDGE, 0x50), config_read(BRIDGE, 0x54));
}

/* FNV-1a */
static u32 hash(u64 at, u64 size)
{
	u32 h = 0x811c9dc5;

	for (u64 end = at + size; at < end; at++)
		h = (h ^ *(volatile u8 *)at) * 0x01000193;
	return h;
}

static void test_opregion(void)
{
	u64 at = config_read(IGD, ASLS), size;

	if (!at) {
		print("igd: no opregion\n");
		return;
	}
	size = read32(at + 0x10) * 1024ull;
	check(read32(at), 0x65746e49); /* "Inte" */
	check_true(size >= 8192 && size <= 256 * 1024);
	print("igd: opregion %lx size %lx hash %x\n", at, size, hash(at, size));
	/* RVDA, RVDS: version 2.1 has them from the OpRegion's start. */
	if (read32(at + 0x3c2)) {
		u64 vbt = at + read32(at + 0x3ba);

		print("igd: vbt %lx size %x hash %x\n", vbt, read32(at + 0x3c2),
		      hash(vbt, read32(at + 0x3c2)));
	}
}

/* A mark on the device: from here on it is this guest that is heard. */
static void mark(u32 value)
{
	write32(bar0() + SCRATCH, value);
	check(read32(bar0() + SCRATCH), value);
}

/* What firmware has locked or Monocle has pinned moves by no write. */
static void test_pinned(void)
{
	static const u8 registers[] = {GGC,  0x54,  BDSM, BDSM_WIDE,
				       0xc4, SWSCI, ASLS};

	mark(PATTERN);
	for (unsigned i = 0; i < COUNT(registers); i++) {
		u32 old = config_read(IGD, registers[i]);

		config_write(IGD, registers[i], ~old);
		check(config_read(IGD, registers[i]), old);
	}
}

static void test_bars(void)
{
	u32 command = config_read(IGD, CONFIG_COMMAND) & 0xffff;
	u64 home = bar0();

	config_write(IGD, CONFIG_COMMAND, command & ~(u32)MEMORY);
	for (unsigned at = CONFIG_BAR0; at < 0x28; at += 4) {
		u32 old = config_read(IGD, at);

		config_write(IGD, at, 0xffffffff);
		print("igd: bar %x %x %x\n", (at - CONFIG_BAR0) / 4, old,
		      config_read(IGD, at));
		config_write(IGD, at, old);
		check(config_read(IGD, at), old);
	}
	config_write(IGD, CONFIG_COMMAND, command | MEMORY | MASTER);
	check(bar0(), home);
	mark(PATTERN + 1);
}

/* Mirrors of configuration space, the device's own. */
static void test_mirrors(void)
{
	print("igd: mirrors %x %x %x\n", read32(bar0() + 0x108040),
	      read32(bar0() + 0x1080c0), read32(bar0() + 0x108100));
}

static u64 scratch;

static void accesses(u32 count)
{
	u32 wrong = 0;

	for (u32 i = 0; i < count; i += 2) {
		write32(scratch, i / 8192);
		wrong |= read32(scratch) ^ i / 8192;
	}
	check(wrong, 0);
}

/* As many as the command line says; there is no exit for them. */
static void test_accesses(void)
{
	scratch = bar0() + SCRATCH;
	count_exits("igd registers", accesses, (u32)option("accesses", 200));
}

static const struct test igd_tests[] = {
	{"igd-identity", test_identity, false},
	{"igd-opregion", test_opregion, false},
	{"igd-pinned", test_pinned, true},
	{"igd-bars", test_bars, false},
	{"igd-mirrors", test_mirrors, false},
	{"igd-accesses", test_accesses, true},
};

/* How many failed. */
unsigned igd(void)
{
	unsigned failed;

	config_write(IGD, CONFIG_COMMAND,
		     (config_read(IGD, CONFIG_COMMAND) & 0xffff) | MEMORY);
	failed = run_tests(igd_tests, COUNT(igd_tests));
	print("igd: %u failed\n", failed);
	hold();
	return failed;
}
