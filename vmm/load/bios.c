/* SPDX-License-Identifier: MIT */
#include "vmm/load/bios.h"

#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/phys.h"
#include "kernel/string.h"
#include "vmm/core/guest_mem.h"
#include "vmm/load/setup_header.h"

#define IMAGE_AT 0x7c00u /* where firmware puts a boot sector */
#define SECTOR 512u
#define LOW_END 0xa0000u
#define BIOS_AREA 0xc0000u
#define BDA_MEMORY 0x413u /* KiB of conventional memory, 16 bits */
#define STUB_LEAST 3072u  /* room for code and rows */
#define ROWS_MAX 128u
#define BOOT_DRIVE 0x80

/* Linux's real-mode boot protocol: Documentation/arch/x86/boot.rst. */
#define SETUP_CODE 0x10000u
#define SETUP_STACK 0xe000u /* setup, its heap and its stack end here, */
#define CMDLINE_AT (SETUP_CODE + SETUP_STACK)
#define CMDLINE_MAX 2048u

/* The end of bios_stub.asm; the rows of INT 15h, E820, follow. */
struct stub_parameters {
	u32 old_int15; /* segment << 16 | offset */
	u32 rows;
	u16 below_16m, above_16m, extended, zero;
} PACKED;

extern const u8 bios_stub[], bios_stub_end[], bios_stub_int13[],
	bios_stub_parameters[];

int bios_check(const struct boot_info *boot, const struct options *options)
{
	const char *fault = NULL;

	if (options->guest != GUEST_BIOS)
		return 0;
	if (boot->uefi)
		fault = "the firmware is UEFI, which has no BIOS services";
	else if (options->ram != RAM_IDENTITY)
		fault = "it needs ram=identity: firmware and guest share the "
			"first MiB";
	if (fault)
		log_error("guest=bios: %s", fault);
	return fault ? -EINVAL : 0;
}

/* A kernel, whose boot sector alone would say that it needs a loader. */
static bool is_setup(const struct loader_input *in)
{
	const u8 *image = in->kernel;

	return in->kernel_size > 2 * SECTOR &&
	       !memcmp(image + SETUP_AT(header), "HdrS", 4) &&
	       image[SETUP_AT(version) + 1] >= 2 &&
	       image[SETUP_AT(loadflags)] & LOADED_HIGH;
}

static u64 setup_size(const u8 *image)
{
	return (image[SETUP_AT(setup_sects)] + 1ull) * SECTOR;
}

static const char *setup_fault(const struct loader_input *in)
{
	u64 size = setup_size(in->kernel);

	if (in->initrd || strlen(in->cmdline) >= CMDLINE_MAX)
		return "a kernel in real mode takes no initrd, and a short "
		       "command line";
	return size > in->kernel_size || size > SETUP_STACK / 2
		       ? "the kernel is truncated"
		       : NULL;
}

static const char *image_fault(const struct loader_input *in, gpa_t stub)
{
	const u8 *image = in->kernel;

	if (in->kernel_size < SECTOR || image[510] != 0x55 ||
	    image[511] != 0xaa)
		return "the image has no boot signature (0x55 0xaa at byte "
		       "510)";
	if (is_setup(in))
		return setup_fault(in);
	if (in->kernel_size > stub - IMAGE_AT)
		return "the image is too large for conventional memory";
	return NULL;
}

/* The loader's things there would be the guest's to change. */
static bool low_memory_is_free(gpa_t end)
{
	struct phys_range r = phys_largest(&host_memory, 0, LOW_END);

	return r.base <= PAGE_SIZE &&
	       r.base + r.size >= ALIGN_DOWN(end, PAGE_SIZE);
}

static int pin(struct region_list *map, gpa_t from, gpa_t to,
	       enum region_kind kind, enum e820_kind e820, const char *name)
{
	bool ram = kind == REGION_RAM;
	struct region r = {.gpa = from,
			   .hpa = from,
			   .size = to - from,
			   .kind = kind,
			   .memtype = ram ? MEMTYPE_WB : MEMTYPE_WP,
			   .e820 = e820,
			   .cpu = REGION_RWX,
			   .dma = ram ? REGION_RW : 0,
			   .name = name};

	return region_pin(map, &r);
}

/* From the first RSDP's page to the last one's: in ROM none can be changed. */
static int copy_bios(struct bios *b)
{
	struct region *r = &b->copied;
	gpa_t at;

	*r = (struct region){.gpa = MIB,
			     .kind = REGION_ROM,
			     .memtype = MEMTYPE_WB,
			     .e820 = E820_RESERVED,
			     .cpu = REGION_RWX,
			     .name = "BIOS, a copy"};
	for (unsigned n = 0; (at = acpi_find_rsdp(MIB, n)); n++) {
		if (at < BIOS_AREA)
			continue;
		r->gpa = MIN(r->gpa, ALIGN_DOWN(at, PAGE_SIZE));
		r->size = ALIGN_UP(at + sizeof(b->rsdp), PAGE_SIZE) - r->gpa;
		r->size = MIN(r->size, MIB - r->gpa);
	}
	if (!r->size)
		return 0;
	r->hpa = phys_alloc(&host_memory, r->size, PAGE_SIZE, PHYS_ANYWHERE);
	if (r->hpa != PHYS_NONE)
		return 0;
	log_error("guest=bios: too little memory for a copy of the BIOS");
	return -ENOMEM;
}

/* The chipset says what of it can be written, as natively. */
static int pin_bios(struct bios *b, struct region_list *map)
{
	struct region *copied = &b->copied;
	gpa_t end;
	int err = copy_bios(b);

	if (!err)
		err = pin(map, BIOS_AREA, copied->gpa, REGION_ROM,
			  E820_RESERVED, "BIOS");
	if (!err && copied->size)
		err = region_pin(map, copied);
	end = copied->gpa + copied->size;
	if (!err && end < MIB)
		err = pin(map, end, MIB, REGION_ROM, E820_RESERVED, "BIOS");
	return err;
}

int bios_regions(struct bios *b, struct region_list *map)
{
	const char *fault;
	u16 kib;
	gpa_t top;
	int err;

	memcpy(&kib, phys_to_virt(BDA_MEMORY), sizeof(kib));
	top = MIN(kib * (u64)KIB, (u64)LOW_END);
	b->stub = ALIGN_DOWN(MAX(top, 64 * KIB) - STUB_LEAST, PAGE_SIZE);
	fault = image_fault(b->loader, b->stub);
	if (!fault && (top < 256 * KIB || !low_memory_is_free(top)))
		fault = "the loader has put something below 640 KiB";
	if (fault) {
		log_error("guest=bios: %s", fault);
		return -EINVAL;
	}
	err = pin(map, 0, b->stub, REGION_RAM, E820_RAM, "low memory");
	if (!err)
		err = pin(map, b->stub, LOW_END, REGION_RAM, E820_RESERVED,
			  "EBDA");
	return err ? err : pin_bios(b, map);
}

int bios_save(struct bios *b)
{
	hpa_t hpa = phys_alloc(&host_memory, MIB, PAGE_SIZE, PHYS_ANYWHERE);

	if (hpa == PHYS_NONE)
		return -ENOMEM;
	b->memory = phys_to_virt(hpa);
	memcpy(b->memory, phys_to_virt(0), LOW_END);
	memcpy((u8 *)b->memory + BIOS_AREA, phys_to_virt(BIOS_AREA),
	       MIB - BIOS_AREA);
	return 0;
}

/* Only what changed: the rest may be ROM, or nobody. */
static void restore(const struct bios *b, hpa_t from, hpa_t to)
{
	const u8 *was = b->memory;
	volatile u8 *is = phys_to_virt(0);

	for (hpa_t at = from; at < to; at++)
		if (is[at] != was[at])
			is[at] = was[at];
}

static void put(hpa_t at, const void *data, u64 size)
{
	memcpy(phys_to_virt(at), data, size);
}

/* The offset of one of its symbols. */
static u64 in_stub(const u8 *symbol)
{
	return (u64)symbol - (u64)bios_stub;
}

static void put_stub(const struct bios *b)
{
	const struct region_list *map = b->loader->map;
	gpa_t at = b->stub;
	u64 code = in_stub(bios_stub_end);
	u64 low = e820_ram(map, MIB, 16 * MIB), high = 0;
	struct stub_parameters p = {0};
	struct e820_row row;
	unsigned index = 0;

	if (low == 15 * MIB)
		high = e820_ram(map, 16 * MIB, 4 * GIB);
	memcpy(&p.old_int15, phys_to_virt(0x15 * 4), 4);
	p.below_16m = (u16)(low / KIB);
	p.above_16m = (u16)(high / (64 * KIB));
	p.extended = (u16)(MIN(low + high, 63 * MIB) / KIB);
	while (p.rows < ROWS_MAX && e820_next(map, &index, &row))
		put(at + code + sizeof(row) * p.rows++, &row, sizeof(row));
	put(at, bios_stub, code);
	put(at + in_stub(bios_stub_parameters), &p, sizeof(p));
}

/* Each in its form: what stands behind a short one (revision 0) stays. */
static void put_rsdp(const struct bios *b)
{
	const struct region *copied = &b->copied;
	gpa_t at, end = copied->gpa + copied->size;

	for (unsigned n = 0; (at = acpi_find_rsdp(MIB, n)); n++) {
		const struct acpi_rsdp *was = phys_to_virt(at);
		struct acpi_rsdp r = b->rsdp;
		u64 size = sizeof(r);

		if (was->revision < 2) {
			size = offsetof(struct acpi_rsdp, length);
			r.checksum = (u8)(r.checksum + r.revision);
			r.revision = 0;
		}
		if (at + size <= LOW_END)
			put(at, &r, size);
		else if (at >= copied->gpa && at + size <= end)
			put(copied->hpa + at - copied->gpa, &r, size);
	}
}

static void hook_vectors(const struct bios *b)
{
	u16 kib = (u16)(b->stub / KIB);
	u32 segment = (u32)(b->stub >> 4) << 16;
	u32 int13 = segment | (u32)in_stub(bios_stub_int13);

	put(0x15 * 4, &segment, sizeof(segment));
	if (!b->has_disk)
		put(0x13 * 4, &int13, sizeof(int13));
	put(BDA_MEMORY, &kib, sizeof(kib));
}

/* Interrupt controllers and timer as the firmware's start leaves them. */
static void set_up_devices(struct bus *bus)
{
	static const struct {
		u16 port;
		u8 value;
	} post[] = {
		{0x20, 0x11}, {0x21, 0x08}, {0x21, 0x04}, {0x21, 0x01},
		{0xa0, 0x11}, {0xa1, 0x70}, {0xa1, 0x02}, {0xa1, 0x01},
		{0x21, 0xb8}, {0xa1, 0x8f}, /* IRQ 0, 1, 6; 12, 13, 14 */
		{0x43, 0x36}, {0x40, 0x00}, {0x40, 0x00}, /* 18.2 Hz */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(post); i++) {
		struct bus_access a = {.addr = post[i].port,
				       .size = 1,
				       .write = true,
				       .value = post[i].value};

		bus_dispatch(bus, BUS_PORT, &a);
	}
}

void bios_restore(const struct bios *b)
{
	restore(b, 0, LOW_END);
	restore(b, BIOS_AREA, MIB);
	put(b->copied.hpa, (u8 *)b->memory + b->copied.gpa, b->copied.size);
}

static int put_setup(const struct loader_input *in, struct guest_entry *entry)
{
	const u8 *image = in->kernel;
	u64 setup = setup_size(image), size = in->kernel_size - setup;
	u8 loader[] = {LOADER_UNDEFINED,
		       image[SETUP_AT(loadflags)] | CAN_USE_HEAP};
	u16 heap_end = SETUP_STACK - SECTOR;
	u32 cmdline = CMDLINE_AT;
	void *high = guest_ptr(in->map, MIB, size);

	if (!high) {
		log_error("guest=bios: the kernel has no place at 1 MiB");
		return -ENOSPC;
	}
	memcpy(high, image + setup, size);
	put(SETUP_CODE, image, setup);
	put(SETUP_CODE + SETUP_AT(type_of_loader), loader, sizeof(loader));
	put(SETUP_CODE + SETUP_AT(heap_end_ptr), &heap_end, sizeof(heap_end));
	put(SETUP_CODE + SETUP_AT(cmd_line_ptr), &cmdline, sizeof(cmdline));
	put(CMDLINE_AT, in->cmdline, strlen(in->cmdline) + 1);
	*entry = (struct guest_entry){.mode = ENTRY_REAL16,
				      .cs = SETUP_CODE / 16 + SECTOR / 16,
				      .ds = SETUP_CODE / 16,
				      .rsp = SETUP_STACK};
	return 0;
}

int bios_start(struct bios *b, struct guest_entry *entry)
{
	const struct loader_input *in = b->loader;

	put_rsdp(b);
	put_stub(b);
	hook_vectors(b);
	set_up_devices(b->bus);
	if (is_setup(in))
		return put_setup(in, entry);
	put(IMAGE_AT, in->kernel, in->kernel_size);
	*entry = (struct guest_entry){.mode = ENTRY_REAL16,
				      .rip = IMAGE_AT,
				      .rsp = IMAGE_AT,
				      .gpr[GPR_RDX] = BOOT_DRIVE};
	return 0;
}
