/* SPDX-License-Identifier: MIT */
// sources: kernel/acpi.c
/*
 * The input is a list of tables: a kind, two bytes of length, a body. They
 * are laid out in memory with checksums and a root table, because a fuzzer
 * guesses neither; between them lies poisoned memory, so that a byte read
 * behind a table's own length is reported. Bits of the kind break the table.
 */
#include <sanitizer/asan_interface.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/acpi.h"
#include "kernel/log.h"
#include "kernel/phys.h"

#define RAM_SIZE (256 * 1024)
#define RSDP 16
#define ROOT 64
#define TABLES 0x1000
#define TABLES_MAX 80
#define GAP 16

enum kind_bits {
	KIND = 7,
	LONG = 0x10,
	WILD = 0x20,
	SHORTENED = 0x40,
	WRONG_CHECKSUM = 0x80
};
enum memory_bits { WIDE = 1, OLD = 2, SHORT = 4 };

static u8 *ram;

void *phys_to_virt(hpa_t hpa)
{
	if (hpa >= RAM_SIZE)
		abort();
	return ram + hpa;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	(void)level;
	(void)fmt;
}

static void fix(u8 *start, size_t length, size_t at)
{
	u8 sum = 0;

	start[at] = 0;
	for (size_t i = 0; i < length; i++)
		sum = (u8)(sum + start[i]);
	start[at] = (u8)-sum;
}

struct memory {
	u64 next; /* host-physical, where the next table goes */
	u64 dsdt;
	unsigned count;
	u64 tables[TABLES_MAX];
};

/* DSDT and X_DSDT lead to a table or, X_DSDT, out of all memory. */
static void point_to_dsdt(const struct memory *mem, u8 kind, u8 *fadt,
			  u32 length)
{
	u64 x_dsdt = kind & WILD ? ~0ull << 12 : kind & LONG ? mem->dsdt : 0;

	if (length >= 44)
		memcpy(fadt + 40, &mem->dsdt, 4);
	if (length >= 148)
		memcpy(fadt + 140, &x_dsdt, 8);
}

static void put(struct memory *mem, u8 kind, const u8 *body, size_t size)
{
	static const char *const names[] = {"DSDT", "SSDT", "FACP", "APIC",
					    "MCFG", "APIC", "FACP", "DMAR"};
	u32 length = 36 + (u32)size;
	u64 at = mem->next;
	u8 *table = ram + at;

	if (mem->count == TABLES_MAX || at + length + GAP > RAM_SIZE)
		return;
	mem->next = (at + length + GAP) & ~7ull;
	ASAN_UNPOISON_MEMORY_REGION(table, length);
	if (kind & SHORTENED && size >= 2)
		length = (body[0] | (u32)body[1] << 8) % length;
	memset(table, 'x', 36);
	memcpy(table, names[kind & KIND], 4);
	memcpy(table + 4, &length, 4);
	memcpy(table + 36, body, size);
	if (!strcmp(names[kind & KIND], "FACP"))
		point_to_dsdt(mem, kind, table, length);
	fix(table, length, 9);
	table[9] = (u8)(table[9] + !!(kind & WRONG_CHECKSUM));
	if (kind & KIND)
		mem->tables[mem->count++] = at;
	else
		mem->dsdt = at;
	ASAN_POISON_MEMORY_REGION(table, 36 + size);
	ASAN_UNPOISON_MEMORY_REGION(table, MAX(length, 36));
}

static void put_root(const struct memory *mem, u8 flags)
{
	u64 root = ROOT;
	size_t width = flags & WIDE ? 8 : 4;
	u32 length = 36 + (u32)(mem->count * width);

	ASAN_UNPOISON_MEMORY_REGION(ram + RSDP, 36);
	memset(ram + RSDP, 0, 36);
	memcpy(ram + RSDP, "RSD PTR ", 8);
	ram[RSDP + 15] = flags & OLD ? 0 : 2;
	memcpy(ram + RSDP + 16, &root, 4);
	ram[RSDP + 20] = 36;
	memcpy(ram + RSDP + 24, &root, 8);
	fix(ram + RSDP, 20, 8);
	fix(ram + RSDP, 36, 32);

	ASAN_UNPOISON_MEMORY_REGION(ram + ROOT, length);
	memset(ram + ROOT, 'x', 36);
	memcpy(ram + ROOT, flags & WIDE ? "XSDT" : "RSDT", 4);
	memcpy(ram + ROOT + 4, &length, 4);
	for (unsigned i = 0; i < mem->count; i++)
		memcpy(ram + ROOT + 36 + i * width, &mem->tables[i], width);
	fix(ram + ROOT, length, 9);
}

static void read_all(const struct acpi_tables *acpi)
{
	static struct acpi_madt madt;
	struct acpi_power power;
	struct acpi_mcfg mcfg;

	if (!acpi_power_init(&power, acpi) && power.has_s5 &&
	    (power.slp_typ_a > 7 || power.slp_typ_b > 7))
		abort();
	if (!acpi_mcfg_init(&mcfg, acpi) && mcfg.base % MIB)
		abort();
	acpi_madt_init(&madt, acpi);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct memory mem = {.next = TABLES};
	struct acpi_tables acpi;
	u64 top = RAM_SIZE;
	u8 flags;

	if (!size)
		return 0;
	if (!ram)
		ram = malloc(RAM_SIZE);
	ASAN_POISON_MEMORY_REGION(ram, RAM_SIZE);
	flags = *data++;
	size--;
	while (size >= 3) {
		size_t want = data[1] | (size_t)data[2] << 8;
		size_t length = MIN(want, size - 3);

		put(&mem, data[0], data + 3, length);
		data += 3 + length;
		size -= 3 + length;
	}
	put_root(&mem, flags);
	if (flags & SHORT)
		top = mem.next - 2 * GAP;
	if (!acpi_init_below(&acpi, RSDP, top))
		read_all(&acpi);
	return 0;
}
