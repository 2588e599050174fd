/* SPDX-License-Identifier: MIT */
#include "vmm/load/firmware.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"
#include "vmm/core/guest_mem.h"
#include "vmm/load/guest_acpi.h"
#include "vmm/load/smbios.h"

#define LEAST (64 * KIB)
#define MOST (16 * MIB)	     /* below it are the APICs */
#define LOW_COPY (128 * KIB) /* below 1 MiB, as chipsets have it */
#define LEAST_RAM (64 * MIB) /* OVMF */
#define RESET_VECTOR 16	     /* before the image's end */
#define FAR_JUMP 0xea	     /* a PC BIOS': to F000:E05B */
#define COMPARE_AL 0x3c
#define LOW_END_MOST (2 * GIB) /* OVMF: 2 GiB up are then one MTRR */

#define LEGACY 0xa0000u
#define SMBIOS_SIZE (64 * KIB)
#define TABLES "etc/acpi/tables"
#define RSDP "etc/acpi/rsdp"

enum command_kind { ALLOCATE = 1, ADD_POINTER = 2, ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

/* PI 1.7, volume 3, 3.2.1: volume header; volumes fill OVMF's image. */
#define VOLUME_LENGTH 32
#define VOLUME_SIGNATURE 40

static bool is_volume(const struct firmware *f, u64 at)
{
	return f->size - at > VOLUME_SIGNATURE + 4 &&
	       !memcmp(f->image + at + VOLUME_SIGNATURE, "_FVH", 4);
}

/* Notes the last one, too. */
static bool is_whole(struct firmware *f)
{
	u64 at = 0, length;

	while (at < f->size && is_volume(f, at)) {
		memcpy(&length, f->image + at + VOLUME_LENGTH, sizeof(length));
		if (!length || length > f->size - at)
			return false;
		f->first_code = f->image + at;
		f->first_size = length;
		at += length;
	}
	return at == f->size;
}

/*
 * The first code, which alone is not compressed, has to know whether this is a
 * resume from S3: CMOS byte 0Fh is 0xFE (OVMF's FindPeiCoreImageBase()). With
 * system management mode a resume is as any start, and nobody looks. Behind
 * the code is the reset vector, with other bytes.
 */
static bool needs_smm(const struct firmware *f)
{
	for (u64 i = 0; i < f->first_size / 2; i++)
		if (f->first_code[i] == COMPARE_AL &&
		    f->first_code[i + 1] == 0xfe)
			return false;
	return true;
}

bool firmware_is_text(const char *string)
{
	return !strncmp(string, "opt/", 4);
}

/* A module opt/NAME with a name that is too long. */
static bool is_long(const char *string)
{
	return firmware_is_text(string) &&
	       fw_cfg_name_length(string) >= FW_CFG_NAME;
}

static const char *find_fault(struct firmware *f)
{
	if (f->options->ram == RAM_IDENTITY)
		return "ram=identity leaves holes in memory, which firmware "
		       "does not look for; leave it out";
	if (f->options->guest == GUEST_BIOS)
		return "guest=bios starts the host's; leave it out";
	if (f->size > MOST)
		return "it is larger than 16 MiB";
	if (f->size < LEAST || (f->size | virt_to_phys(f->image)) & PAGE_MASK)
		return "it is truncated, or not on pages of memory";
	f->uefi = is_volume(f, 0);
	if (f->uefi && !is_whole(f))
		return "it is truncated: its volumes do not end where it does";
	if (f->uefi && f->image[f->size - RESET_VECTOR] == 0xff)
		return "it has variables alone; take OVMF.fd, or OVMF_CODE's";
	if (f->uefi && needs_smm(f))
		return "it needs system management mode, as *.secboot.fd and "
		       "*.ms.fd do; take OVMF.fd or OVMF_CODE_4M.fd";
	if (!f->uefi && (f->size > 2 * LOW_COPY ||
			 f->image[f->size - RESET_VECTOR] != FAR_JUMP))
		return "it is neither SeaBIOS (bios.bin) nor OVMF (OVMF.fd)";
	for (unsigned i = 0; i < f->boot->module_count; i++)
		if (is_long(f->boot->modules[i].string))
			return "beside it, a module opt/... has a name of more "
			       "than 55 bytes";
	return NULL;
}

int firmware_check(struct firmware *f)
{
	const char *fault = f->image ? find_fault(f) : NULL;

	if (fault)
		log_error("module 'firmware': %s", fault);
	else if (f->image)
		log_info("firmware: %s, %llu KiB",
			 f->uefi ? "UEFI" : "a PC BIOS", f->size / KIB);
	return fault ? -EINVAL : 0;
}

gpa_t firmware_low_end(const struct region_list *map, gpa_t end)
{
	end = MIN(end, LOW_END_MOST);
	for (unsigned i = 0; i < map->count; i++) {
		const struct region *r = &map->regions[i];

		if (r->kind != REGION_RAM && r->gpa >= MIB)
			end = MIN(end, r->gpa);
	}
	return end;
}

int firmware_regions(struct firmware *f, struct region_list *map)
{
	struct region r = {.gpa = 4 * GIB - f->size,
			   .hpa = virt_to_phys(f->image),
			   .size = f->size,
			   .kind = REGION_ROM,
			   .memtype = MEMTYPE_WB,
			   .e820 = E820_RESERVED,
			   .cpu = REGION_RX,
			   .name = "firmware"};
	hpa_t hpa = phys_alloc(&host_memory, GUEST_ACPI_SIZE + SMBIOS_SIZE,
			       PAGE_SIZE, PHYS_ANYWHERE);

	if (hpa == PHYS_NONE) {
		log_error("too little memory for the firmware's tables");
		return -ENOMEM;
	}
	f->tables = phys_to_virt(hpa);
	memset(f->tables, 0, GUEST_ACPI_SIZE);
	f->smbios = f->tables + GUEST_ACPI_SIZE;
	return region_pin(map, &r);
}

int firmware_check_memory(const struct firmware *f)
{
	u64 size = e820_ram(f->map, MIB, 4 * GIB);

	if (size >= LEAST_RAM - MIB)
		return 0;
	log_error("firmware: memory ends at %llu MiB, or something is there "
		  "that must stay; it needs %llu MiB in one piece",
		  (size + MIB) / MIB, LEAST_RAM / MIB);
	return -ENOMEM;
}

/* A command for that file, the address of which is not yet known. */
static struct firmware_command *
add_command(struct firmware *f, enum command_kind command, const char *file)
{
	struct firmware_command *c = &f->commands[f->command_count++];

	*c = (struct firmware_command){.command = command};
	memcpy(c->file, file, strlen(file));
	return c;
}

static void add_allocate(struct firmware *f, const char *file, u32 align,
			 u8 zone)
{
	struct firmware_command *c = add_command(f, ALLOCATE, file);

	c->allocate.align = align;
	c->allocate.zone = zone;
}

/* What stands there is an offset into the tables. */
static void add_pointer(struct firmware *f, const char *file, u32 at, u8 size)
{
	struct firmware_command *c = add_command(f, ADD_POINTER, file);

	memcpy(c->pointer.target, TABLES, sizeof(TABLES));
	c->pointer.offset = at;
	c->pointer.size = size;
}

/* OVMF sums up what is there, the sum itself too. */
static void add_sum(struct firmware *f, const char *file, u8 *data, u32 at,
		    u32 start, u32 length)
{
	struct firmware_command *c = add_command(f, ADD_CHECKSUM, file);

	data[at] = 0;
	c->sum.offset = at;
	c->sum.start = start;
	c->sum.length = length;
}

static void sum_table(struct firmware *f, u32 at)
{
	const struct acpi_header *h = (const void *)(f->tables + at);

	add_sum(f, TABLES, f->tables,
		at + (u32)offsetof(struct acpi_header, checksum), at,
		h->length);
}

/* RSDT or XSDT; the first table that it names. */
static u32 link_list(struct firmware *f, u32 at, u8 size)
{
	const struct acpi_header *h = (const void *)(f->tables + at);
	u32 first;

	for (u32 i = sizeof(*h); i < h->length; i += size)
		add_pointer(f, TABLES, at + i, size);
	sum_table(f, at);
	memcpy(&first, h + 1, sizeof(first));
	return first;
}

void firmware_link(struct firmware *f)
{
	/* ACPI 6.4, 5.2.9: FACS, DSDT, X_FIRMWARE_CTRL, X_DSDT */
	static const struct {
		u8 at, size;
	} fadt[] = {{36, 4}, {40, 4}, {132, 8}, {140, 8}};
	u32 at;

	f->command_count = 0;
	add_allocate(f, TABLES, 64, ZONE_HIGH);
	add_allocate(f, RSDP, 16, ZONE_FSEG);
	link_list(f, f->rsdp.rsdt, 4);
	at = link_list(f, (u32)f->rsdp.xsdt, 8);
	for (unsigned i = 0; i < ARRAY_SIZE(fadt); i++)
		add_pointer(f, TABLES, at + fadt[i].at, fadt[i].size);
	sum_table(f, at);
	add_pointer(f, RSDP, offsetof(struct acpi_rsdp, rsdt), 4);
	add_pointer(f, RSDP, offsetof(struct acpi_rsdp, xsdt), 8);
	add_sum(f, RSDP, (u8 *)&f->rsdp, offsetof(struct acpi_rsdp, checksum),
		0, 20);
	add_sum(f, RSDP, (u8 *)&f->rsdp,
		offsetof(struct acpi_rsdp, extended_checksum), 0,
		sizeof(f->rsdp));
}

/*
 * OVMF knows from the map where RAM is, and takes no place for what is reserved
 * among the BARs; SeaBIOS passes it on. Both know of ECAM and of themselves.
 */
static void fill_rows(struct firmware *f)
{
	struct e820_row row;
	unsigned index = 0;

	f->row_count = 0;
	while (f->row_count < ARRAY_SIZE(f->rows) &&
	       e820_next(f->map, &index, &row)) {
		bool own = row.base == FIRMWARE_ECAM ||
			   (row.base >= LEGACY && row.base < MIB);

		if (row.kind == E820_RAM || (!own && !f->uefi))
			f->rows[f->row_count++] = row;
	}
}

static int add_files(struct firmware *f, const struct firmware_machine *m)
{
	u32 smbios = smbios_copy(f->boot, 0, f->smbios, SMBIOS_SIZE,
				 f->options->serials);
	const struct {
		const char *name;
		struct fw_cfg_file file;
	} files[] = {
		{"etc/e820",
		 {f->rows, f->row_count * (u32)sizeof(f->rows[0]), NULL, NULL}},
		/* Read first, whereupon all of them are made anew. */
		{"etc/table-loader",
		 {f->commands, sizeof(f->commands), m->fill, m->ctx}},
		{TABLES, {f->tables, GUEST_ACPI_SIZE, NULL, NULL}},
		{RSDP, {&f->rsdp, sizeof(f->rsdp), NULL, NULL}},
		{"etc/smbios/smbios-anchor",
		 {f->smbios, smbios ? SMBIOS_ENTRY : 0, NULL, NULL}},
		{"etc/smbios/smbios-tables",
		 {f->smbios + SMBIOS_ENTRY, smbios ? smbios - SMBIOS_ENTRY : 0,
		  NULL, NULL}},
		{"etc/sercon-port",
		 {&f->serial_port, m->serial_port ? 8 : 0, NULL, NULL}},
		{"bootorder", {f->boot_order, m->boot_order, NULL, NULL}},
		{"etc/extra-pci-roots",
		 {&f->more_roots, f->more_roots ? 8 : 0, NULL, NULL}},
	};
	int err = 0;

	for (unsigned i = 0; !err && i < ARRAY_SIZE(files); i++)
		if (files[i].file.size)
			err = fw_cfg_add(&f->config, files[i].name,
					 files[i].file);
	return err;
}

/* The user's: opt/NAME */
static int add_texts(struct firmware *f)
{
	int err = 0;

	for (unsigned i = 0; !err && i < f->boot->module_count; i++) {
		const struct boot_module *module = &f->boot->modules[i];
		struct fw_cfg_file file = {.data = phys_to_virt(module->start),
					   .size = (u32)module->size};

		if (firmware_is_text(module->string))
			err = fw_cfg_add(&f->config, module->string, file);
	}
	return err;
}

int firmware_init(struct firmware *f, struct bus *bus,
		  const struct firmware_machine *machine)
{
	int err = fw_cfg_init(&f->config, bus);

	f->serial_port = machine->serial_port;
	f->more_roots = machine->roots - 1;
	fill_rows(f);
	if (!err)
		err = add_files(f, machine);
	return err ? err : add_texts(f);
}

int firmware_start(struct firmware *f, struct guest_entry *entry)
{
	u64 size = MIN(f->size, LOW_COPY);

	fw_cfg_reset(&f->config);
	*entry = (struct guest_entry){
		.mode = ENTRY_REAL16, .cs = 0xf000, .rip = 0xfff0};
	return guest_write(f->map, MIB - size, f->image + f->size - size, size);
}
