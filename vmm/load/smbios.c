/* SPDX-License-Identifier: MIT */
#include "vmm/load/smbios.h"

#include "kernel/acpi.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"
#include "vmm/load/guest_acpi.h"

/* 42 has the UUID and addresses of a management controller. */
enum {
	SYSTEM = 1,
	BATTERY = 22,
	INTERFACE = 42,
	END = 127,
	VENDOR = 128, /* and above */
};
enum { HEADER = 4 /* type, length, handle */, EFI_TABLES_MAX = 256 };

/* 5.2.2 */
struct entry_point {
	char anchor[5];
	u8 checksum, length, major, minor, docrev, revision, reserved;
	u32 size;
	u64 table;
} PACKED;

_Static_assert(sizeof(struct entry_point) == SMBIOS_ENTRY, "DSP0134 5.2.2");

/* UEFI 2.9, 4.6: SMBIOS3_TABLE_GUID, to be preferred, and SMBIOS_TABLE_GUID */
static const u64 guids[][2] = {
	{0x4a2c9794f2fd1544, 0x94e320cfbbe52e99},
	{0x11d32d88eb9d2d31, 0x4dc13f279000169a},
};

/* 7: types, and where the numbers of strings are that are one machine's. */
static const u8 personal[][2] = {
	{SYSTEM, 0x07}, {2, 0x07},  {2, 0x08},	{3, 0x07},
	{3, 0x08},	{4, 0x20},  {4, 0x21},	{17, 0x18},
	{17, 0x19},	{22, 0x07}, {39, 0x08}, {39, 0x09},
};

/* In what is mapped as a whole. */
static bool reachable(u64 hpa, u64 size)
{
	return hpa && hpa < 4 * GIB && size <= 4 * GIB - hpa;
}

/* One of 2.1 (5.2.1) is made one of 3.0. */
static bool read_entry(struct entry_point *e, hpa_t at)
{
	const u8 *p = phys_to_virt(at);

	if (!reachable(at, 32) || memcmp(p, "_SM", 3))
		return false;
	memcpy(e, p, sizeof(*e));
	if (p[3] == '_') {
		*e = (struct entry_point){"_SM3_", 0, p[5], p[6], p[7],
					  0,	   1, 0,    0,	  0};
		memcpy(&e->size, p + 0x16, 2);
		memcpy(&e->table, p + 0x18, 4);
	}
	e->size = MIN(e->size, (u32)MIB);
	return e->length >= 24 && e->length <= 32 &&
	       acpi_checksum_ok(p, e->length) && reachable(e->table, e->size);
}

/* UEFI 2.9, 4.3: what the system table has by that GUID, or 0. */
static hpa_t efi_table(hpa_t system, const u64 guid[2])
{
	const u64 *t = phys_to_virt(system);
	hpa_t at;

	if (!reachable(system, 120) || system & 7 || memcmp(t, "IBI SYST", 8))
		return 0;
	at = t[14];
	for (u64 n = MIN(t[13], EFI_TABLES_MAX); n; n--, at += 24) {
		if (!reachable(at, 24) || at & 7)
			return 0;
		t = phys_to_virt(at);
		if (t[0] == guid[0] && t[1] == guid[1])
			return t[2];
	}
	return 0;
}

static bool find(struct entry_point *e, const struct boot_info *boot)
{
	hpa_t at = 0xf0000;

	for (unsigned i = 0; i < ARRAY_SIZE(guids); i++)
		if (read_entry(e, efi_table(boot->efi, guids[i])))
			return true;
	while (at < MIB && !read_entry(e, at))
		at += 16;
	return at < MIB;
}

/* With its strings, 6.1.3; 0: it does not end within what is left. */
static u32 structure_size(const u8 *p, u32 left)
{
	bool sound = left >= HEADER && p[1] >= HEADER;

	for (u32 n = sound ? p[1] : left; n + 2 <= left; n++)
		if (!p[n] && !p[n + 1])
			return n + 2;
	return 0;
}

/*
 * Blanks in a string's place: the numbers of the others stay. No UUID, and of a
 * smart battery no number (7.23).
 */
static void blank(u8 *p, u32 size)
{
	for (unsigned i = 0; i < ARRAY_SIZE(personal); i++) {
		u8 offset = personal[i][1];
		bool there = p[0] == personal[i][0] && offset < p[1];
		u32 n = there ? p[offset] : 0, at = p[1];

		for (; n > 1 && at < size; n--)
			at += (u32)strlen((char *)p + at) + 1;
		for (; n && at < size && p[at]; at++)
			p[at] = ' ';
	}
	if (p[0] == SYSTEM && p[1] >= 24)
		memset(p + 8, 0, 16);
	if (p[0] == BATTERY && p[1] >= 0x12)
		memset(p + 0x10, 0, 2);
}

u32 smbios_copy(const struct boot_info *boot, gpa_t gpa, u8 *memory, u32 size,
		bool serials)
{
	static const u8 last[] = {END, HEADER, 0xfe, 0xff, 0, 0};
	u32 used = sizeof(struct entry_point), n;
	struct entry_point e;
	const u8 *p, *end;

	if (!find(&e, boot))
		return 0;
	p = phys_to_virt(e.table);
	for (end = p + e.size; p < end && p[0] != END; p += n) {
		n = structure_size(p, (u32)(end - p));
		if (!n || used + n + sizeof(last) > size) {
			log_warn("smbios: the table is not sound, or too long; "
				 "the guest gets its beginning");
			break;
		}
		if ((p[0] >= VENDOR || p[0] == INTERFACE) && !serials)
			continue;
		memcpy(memory + used, p, n);
		if (!serials)
			blank(memory + used, n);
		used += n;
	}
	memcpy(memory + used, last, sizeof(last));
	e.table = gpa + sizeof(e);
	e.size = used + (u32)(sizeof(last) - sizeof(e));
	e.length = sizeof(e);
	e.checksum = 0;
	e.checksum = sum_to_zero(&e, sizeof(e));
	memcpy(memory, &e, sizeof(e));
	return used + (u32)sizeof(last);
}
