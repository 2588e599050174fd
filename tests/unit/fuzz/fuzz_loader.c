/* SPDX-License-Identifier: MIT */
// sources: vmm/load/loader.c vmm/load/loader_ram.c vmm/load/linux.c
// sources: vmm/load/multiboot.c vmm/core/guest_mem.c kernel/region.c
/*
 * The guest's kernel file, as it comes from a user: any bytes. Two bytes of
 * options go before: the initrd's size, and which signatures are put into
 * the file, because a fuzzer guesses them rarely.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/log.h"
#include "kernel/phys.h"
#include "vmm/core/guest_mem.h"
#include "vmm/load/loader.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

static u8 low[0xa0000] __attribute__((aligned(4096)));
static u8 high[3 * 1024 * 1024] __attribute__((aligned(4096)));
static unsigned errors;

void *phys_to_virt(hpa_t hpa)
{
	return (void *)(uintptr_t)hpa;
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	__builtin_vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (level == LOG_ERROR)
		errors++;
}

static void add(struct region_list *map, gpa_t gpa, void *memory, u64 size)
{
	struct region r = {
		.gpa = gpa,
		.hpa = (uintptr_t)memory,
		.size = size,
		.kind = REGION_RAM,
		.memtype = MEMTYPE_WB,
		.e820 = E820_RAM,
		.cpu = REGION_RWX,
		.name = "ram",
	};

	if (region_add(map, &r, NULL))
		abort();
}

/* Refusals come with one line, a kernel that loads starts in guest RAM. */
static void check(const struct loader_input *in)
{
	struct guest_entry entry;
	int checked, loaded;

	errors = 0;
	checked = loader_check(in);
	if (errors != (checked ? 1 : 0))
		abort();
	loaded = loader_load(in, &entry);
	if (loaded != checked)
		abort();
	if (!loaded && !guest_ptr(in->map, entry.rip, 1))
		abort();
}

static void put(u8 *file, size_t size, size_t at, const void *data, size_t n)
{
	if (at + n <= size)
		memcpy(file + at, data, n);
}

enum signatures { LINUX = 1, MULTIBOOT = 2, ELF = 4, ELF64 = 8 };

static void put_signatures(u8 *file, size_t size, u8 which)
{
	const u8 elf[20] = {0x7f,
			    'E',
			    'L',
			    'F',
			    which & ELF64 ? 2 : 1,
			    1,
			    1,
			    [16] = 2,
			    [18] = which & ELF64 ? 62 : 3};
	u32 header[3] = {0x1badb002};

	if (which & LINUX) {
		put(file, size, 0x1fe, "\x55\xaa", 2);
		put(file, size, 0x202, "HdrS\x0f\x02", 6);
		put(file, size, 0x211, "\1", 1);
		put(file, size, 0x236, "\1", 1);
	}
	if (which & MULTIBOOT && size >= 160) {
		memcpy(&header[1], file + 132, 4);
		header[2] = -(header[0] + header[1]);
		put(file, size, 128, header, sizeof(header));
	}
	if (which & ELF)
		put(file, size, 0, elf, sizeof(elf));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static const u8 initrd[70000];
	struct region_list map = {0};
	struct loader_input in = {.map = &map, .cmdline = "quiet"};
	u8 *kernel;

	if (size < 2)
		return 0;
	add(&map, 0, low, sizeof(low));
	add(&map, MIB, high, sizeof(high));
	in.initrd = initrd;
	in.initrd_size = data[0] * 257;
	kernel = malloc(size - 2); /* of its own, so that ASan sees its end */
	if (!kernel)
		return 0;
	memcpy(kernel, data + 2, size - 2);
	put_signatures(kernel, size - 2, data[1]);
	in.kernel = kernel;
	in.kernel_size = size - 2;
	check(&in);
	free(kernel);
	return 0;
}
