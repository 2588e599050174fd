/* SPDX-License-Identifier: MIT */
#include "kernel/microcode.h"

#include "arch/x86/cpu.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"

#define CPIO_MAGIC "070701" /* cpio(5), New ASCII Format */
#define CPIO_HEADER 110u
#define NAME "kernel/x86/microcode/GenuineIntel.bin"
#define CPUID_1_ECX_HYPERVISOR (1u << 31)
#define MSR_PLATFORM_ID 0x17
#define MSR_UPDATE_TRIGGER 0x79

/* SDM table 9-7 */
struct update {
	u32 version; /* 1 */
	u32 revision;
	u32 date; /* BCD: mmddyyyy */
	u32 signature;
	u32 checksum;
	u32 loader;    /* 1 */
	u32 platforms; /* one bit for each of IA32_PLATFORM_ID's eight */
	u32 data_size; /* 0: 2000 */
	u32 total_size;
	u32 reserved[3];
};

/* SDM tables 9-8 and 9-9: behind the data, further CPUs that it is for. */
struct extended_table {
	u32 count, checksum, reserved[3];
};

struct extended_signature {
	u32 signature, platforms, checksum;
};

_Static_assert(sizeof(struct update) == 48, "SDM table 9-7");
_Static_assert(sizeof(struct extended_table) == 20, "SDM table 9-8");

static const u8 *file;
static u64 file_size; /* of checked updates */

/* Eight hexadecimal digits. */
static u64 hex8(const u8 *p)
{
	u64 n = 0;

	for (unsigned i = 0; i < 8; i++) {
		u8 c = p[i] | 0x20;

		n = n << 4 | (c >= 'a' ? (c - 'a' + 10u) & 15 : c & 15u);
	}
	return n;
}

/*
 * The file of that name in what is not packed of an initrd: archives that
 * follow one another, with zeros between them.
 */
static void find_in_cpio(const u8 *at, u64 left)
{
	u64 size, name, data, step;

	for (; left >= CPIO_HEADER; at += step, left -= step) {
		step = 4;
		if (!at[0])
			continue;
		if (memcmp(at, CPIO_MAGIC, 6))
			break;
		size = hex8(at + 54);
		name = hex8(at + 94);
		data = ALIGN_UP(CPIO_HEADER + name, 4);
		step = data + ALIGN_UP(size, 4);
		if (step > left)
			break;
		if (name == sizeof(NAME) &&
		    !memcmp(at + CPIO_HEADER, NAME, name)) {
			file = at + data;
			file_size = size;
			return;
		}
	}
	log_warn("microcode: no " NAME " is in the module's archive");
}

static u32 sum(const void *p, u64 size)
{
	const u32 *words = p;
	u32 total = 0;

	for (u64 i = 0; i < size / 4; i++)
		total += words[i];
	return total;
}

static u64 data_size(const struct update *u)
{
	return u->data_size ? u->data_size : 2000;
}

static u64 total_size(const struct update *u)
{
	return u->data_size ? u->total_size : 2048;
}

/* SDM 9.11.1: sizes in words and KiB; what it holds adds up to 0. */
static bool update_ok(const struct update *u, u64 left)
{
	if (left < sizeof(*u) || u->version != 1 || u->loader != 1)
		return false;
	return data_size(u) % 4 == 0 && total_size(u) % KIB == 0 &&
	       total_size(u) <= left &&
	       sizeof(*u) + data_size(u) <= total_size(u) &&
	       sum(u, sizeof(*u) + data_size(u)) == 0;
}

/* The file ends before the first update of wrong form. */
static void check_file(void)
{
	for (u64 at = 0; at < file_size;) {
		const struct update *u = (const void *)(file + at);

		if (!update_ok(u, file_size - at)) {
			log_warn("microcode: the update at byte %lu is cut "
				 "short or has a wrong sum; it is left out, "
				 "with what follows",
				 at);
			file_size = at;
			return;
		}
		at += total_size(u);
	}
}

void microcode_init(const struct boot_info *boot)
{
	const struct boot_module *m = boot_module_find(boot, "microcode");
	const u8 *found;

	file_size = 0;
	if (!m)
		return;
	file = phys_to_virt(m->start);
	if (m->size >= CPIO_HEADER && !memcmp(file, CPIO_MAGIC, 6))
		find_in_cpio(file, m->size);
	else if (!((u64)file & 15)) /* the loader puts it on a page */
		file_size = m->size;
	/* The data behind a header of 48 bytes must lie on 16 (SDM 9.11.6). */
	found = file;
	file -= (u64)file & 15;
	memmove((void *)(u64)file, found, file_size);
	check_file();
}

/* Whether a checked update is for this type of CPU. */
static bool is_for(const struct update *u, u32 cpu, u32 platform)
{
	u64 used = sizeof(*u) + data_size(u), left = total_size(u) - used;
	const struct extended_table *table = (const void *)((u64)u + used);
	const struct extended_signature *s = (const void *)(table + 1);

	if (u->signature == cpu && u->platforms & platform)
		return true;
	if (left < sizeof(*table) ||
	    table->count > (left - sizeof(*table)) / sizeof(*s) ||
	    sum(table, sizeof(*table) + table->count * sizeof(*s)))
		return false;
	for (u32 i = 0; i < table->count; i++)
		/* With it in the header's place the sum is 0 as well. */
		if (s[i].signature == cpu && s[i].platforms & platform &&
		    sum(&s[i], sizeof(*s)) ==
			    u->signature + u->platforms + u->checksum)
			return true;
	return false;
}

/* SDM 9.11.7.1: CPUID writes what is in force into the MSR. */
static u32 revision(void)
{
	wrmsr(MSR_MICROCODE, 0);
	cpuid(1, 0);
	return (u32)(rdmsr(MSR_MICROCODE) >> 32);
}

/* The newest one for this CPU that is newer than what it has, or NULL. */
static const struct update *find(u32 newest)
{
	const struct update *u, *found = NULL;
	u32 cpu = cpuid(1, 0).eax;
	u64 platform = 0;

	(void)rdmsr_safe(MSR_PLATFORM_ID, &platform);
	for (u64 at = 0; at < file_size; at += total_size(u)) {
		u = (const void *)(file + at);
		/* Revisions are signed: below 0 are those for tests. */
		if ((s32)u->revision <= (s32)newest ||
		    !is_for(u, cpu, 1u << (platform >> 50 & 7)))
			continue;
		found = u;
		newest = u->revision;
	}
	return found;
}

static void tell_loaded(u32 before, u32 after, const struct update *u)
{
	if (!u)
		log_info("microcode: revision 0x%x", before);
	else if (after == u->revision)
		log_info("microcode: revision 0x%x in place of 0x%x", after,
			 before);
	else
		log_warn("microcode: the CPU does not take revision 0x%x; it "
			 "keeps 0x%x",
			 u->revision, after);
}

u32 microcode_revision(void)
{
	u64 value;

	return rdmsr_safe(MSR_MICROCODE, &value) ? 0 : revision();
}

/*
 * The first revisions whose TSC deadline is right where firmware has used
 * TSC_ADJUST: Linux's deadline_match[]. A stepping of 0 is any.
 */
static const struct {
	u32 signature, revision;
} deadlines[] = {
	{0x306c0, 0x22},       {0x40650, 0x20},	      {0x40660, 0x17},
	{0x306d0, 0x25},       {0x40670, 0x17},	      {0x406e0, 0xb2},
	{0x506e0, 0xb2},       {0x806e0, 0x52},	      {0x906e0, 0x52},
	{0x306f2, 0x3a},       {0x306f4, 0x0f},	      {0x406f0, 0x0b000020},
	{0x50662, 0x11},       {0x50663, 0x0700000e}, {0x50664, 0x0f00000c},
	{0x50665, 0x0e000003}, {0x50653, 0x01000136}, {0x50654, 0x02000014},
};

bool microcode_mends_deadline(void)
{
	u32 signature = cpuid(1, 0).eax & 0x0fff3fff;
	u32 now = microcode_revision();

	for (unsigned i = 0; now && i < ARRAY_SIZE(deadlines); i++)
		if (deadlines[i].signature == signature ||
		    deadlines[i].signature == (signature & ~0xfu))
			return now >= deadlines[i].revision;
	return true;
}

u32 microcode_load(bool tell)
{
	const struct update *u = NULL;
	u32 before, after;
	u64 value;

	if (rdmsr_safe(MSR_MICROCODE, &value))
		return 0;
	/* Another hypervisor's CPU: what it has is not ours to change. */
	if (cpuid(1, 0).ecx & CPUID_1_ECX_HYPERVISOR)
		return (u32)(value >> 32);
	before = after = revision();
	u = find(before);
	if (u) {
		/* Some steppings want it: Linux, __apply_microcode(). */
		wbinvd();
		wrmsr(MSR_UPDATE_TRIGGER, (u64)(u + 1));
		after = revision();
	}
	if (tell)
		tell_loaded(before, after, u);
	return after;
}
