/* SPDX-License-Identifier: MIT */
#include "vmm/assign/igd.h"

#include "arch/x86/errno.h"
#include "arch/x86/io.h"
#include "kernel/host_paging.h"
#include "kernel/log.h"
#include "kernel/string.h"

#define HOST_BRIDGE BDF(0, 0, 0)
#define CLASS_VGA 0x0300
#define CLASS_ISA_BRIDGE 0x0601
#define DEVEN 0x54 /* of 00:00.0: bit 4 is device 2 */
#define DEVEN_IGD BIT(4)
#define CONTROL_VGA_DISABLE BIT(1)
#define CONTROL_SHADOW_GTT BIT(11) /* generation 5 */
#define MIB_MASK (MIB - 1)
#define ASLS 0xfc
#define DSM_WIDE 0xc0
#define DSM_NARROW 0x5c
#define TOUUD 0xa8 /* of 00:00.0, from generation 6 on */

/* In BAR 0 from Meteor Lake on: Linux, i915_gem_stolen_lmem_setup() */
#define MIRROR_GGC 0x108040
#define MIRROR_DSM 0x1080c0
#define MIRROR_GSM 0x108100
#define STOLEN_ACCESS 0x138914 /* 1: firmware lets the CPU reach it */
#define MIRRORS_SIZE 0x139000

/* OpRegion: offsets and bounds. Sizes are what firmware has made so far. */
#define OPREGION_LEAST (8 * KIB)
#define OPREGION_MOST (256 * KIB)
#define OPREGION_SIZE 0x10    /* KiB */
#define OPREGION_VERSION 0x16 /* major << 8 | minor */
#define OPREGION_RVDA 0x3ba
#define OPREGION_RVDS 0x3c2
#define VBT_MOST MIB

/* Bits 7:4: MiB; the values came in the order of the chipsets. */
static u64 dsm_size_5(u32 control)
{
	static const u16 mib[16] = {0,	 1,   4,  8,   16,  32,	 48, 64,
				    128, 256, 96, 160, 224, 352, 0,  0};

	return mib[control >> 4 & 15] * MIB;
}

static u64 dsm_size_6(u32 control)
{
	return (control >> 3 & 31) * 32 * MIB;
}

static u64 dsm_size_8(u32 control)
{
	return (control >> 8 & 255) * 32 * MIB;
}

static u64 dsm_size_9(u32 control)
{
	u32 n = control >> 8 & 255;

	return n < 0xf0 ? n * 32 * MIB : (n - 0xef) * 4 * MIB;
}

/* Bits 11:8; with bit 11 a shadow GTT of the same size comes to it. */
static u64 gsm_size_5(u32 control)
{
	static const u8 mib[16] = {
		[1] = 1, [3] = 2, [9] = 2, [10] = 3, [11] = 4};

	return mib[control >> 8 & 15] * MIB;
}

static u64 gsm_size_6(u32 control)
{
	return (control >> 8 & 3) * MIB;
}

static u64 gsm_size_8(u32 control)
{
	u32 n = control >> 6 & 3;

	return n ? MIB << n : 0;
}

static const struct igd_layout layouts[] = {
	{5, 5, 0x52, 0x5c, false, 0xa8, 0xb0, dsm_size_5, gsm_size_5},
	{6, 7, 0x50, 0x5c, false, 0xb4, 0xbc, dsm_size_6, gsm_size_6},
	{8, 8, 0x50, 0x5c, false, 0xb4, 0xbc, dsm_size_8, gsm_size_8},
	{9, 10, 0x50, 0x5c, false, 0xb4, 0xbc, dsm_size_9, gsm_size_8},
	{11, 12, 0x50, 0xc0, true, 0xb4, 0xbc, dsm_size_9, gsm_size_8},
};

struct id_row {
	u16 first, last; /* device IDs, inclusive */
	u8 generation;
	u32 quirks;
	const char *name;
};

/* The first row that holds the ID counts. */
static const struct id_row ids[] = {
	{0x0042, 0x0046, 5, 0, "Ironlake"},
	{0x0150, 0x017f, 7, 0, "Ivy Bridge"},
	{0x0100, 0x014f, 6, 0, "Sandy Bridge"},
	{0x0400, 0x04ff, 7, 0, "Haswell"},
	{0x0a84, 0x0a85, 9, 0, "Broxton"},
	{0x0a00, 0x0aff, 7, 0, "Haswell"},
	{0x0c00, 0x0dff, 7, 0, "Haswell"},
	{0x0f00, 0x0fff, 7, IGD_UNSUPPORTED, "Valleyview"}, /* no VT-d */
	/* Linux: quirk_iommu_igfx, of all Broadwells */
	{0x1600, 0x16ff, 8, IGD_NO_REMAPPING, "Broadwell"},
	{0x1900, 0x19ff, 9, 0, "Skylake"},
	{0x1a84, 0x1a85, 9, 0, "Broxton"},
	{0x2200, 0x22ff, 8, IGD_UNSUPPORTED, "Cherryview"},	 /* no VT-d */
	{0x2500, 0x2eff, 4, IGD_UNSUPPORTED, "before Ironlake"}, /* no EPT */
	{0x3100, 0x31ff, 9, 0, "Gemini Lake"},
	{0x3e00, 0x3eff, 9, 0, "Coffee Lake"},
	{0x4500, 0x45ff, 11, 0, "Elkhart Lake"},
	{0x4600, 0x46ff, 12, 0, "Alder Lake"},
	{0x4c00, 0x4cff, 12, 0, "Rocket Lake"},
	{0x4e00, 0x4eff, 11, 0, "Jasper Lake"},
	{0x5900, 0x59ff, 9, 0, "Kaby Lake"},
	{0x5a84, 0x5a85, 9, 0, "Apollo Lake"},
	{0x5a40, 0x5a5f, 10, 0, "Cannon Lake"},
	{0x6400, 0x64ff, 12, IGD_STOLEN_IN_BAR, "Lunar Lake"},
	{0x7d00, 0x7dff, 12, IGD_STOLEN_IN_BAR, "Meteor, Arrow Lake"},
	{0x87c0, 0x87cf, 9, 0, "Amber Lake"},
	{0x8a00, 0x8aff, 11, 0, "Ice Lake"},
	{0x9a00, 0x9aff, 12, 0, "Tiger Lake"},
	{0x9b00, 0x9bff, 9, 0, "Comet Lake"},
	{0xa700, 0xa7ff, 12, 0, "Raptor Lake"},
	{0xb000, 0xb0ff, 12, IGD_STOLEN_IN_BAR, "Panther Lake"},
	{0xb600, 0xb6ff, 12, IGD_STOLEN_IN_BAR, "Arrow Lake"},
	{0xd740, 0xd75f, 12, IGD_STOLEN_IN_BAR, "Nova Lake"},
	{0xfd80, 0xfd8f, 12, IGD_STOLEN_IN_BAR, "Wildcat Lake"},
};

/* By the host bridge. Linux: quirk_iommu_igfx, _calpella_no_shadow_gtt. */
static const struct id_row bridges[] = {
	{0x0040, 0x0040, 5, IGD_SHADOW_GTT, "Ironlake desktop"},
	{0x0044, 0x0044, 5, IGD_NO_REMAPPING, "Ironlake mobile"},
	{0x0062, 0x0062, 5, IGD_SHADOW_GTT, "Ironlake mobile"},
	{0x006a, 0x006a, 5, IGD_SHADOW_GTT, "Ironlake mobile"},
	{0x2a40, 0x2a40, 4, IGD_NO_REMAPPING, "Cantiga"},
	{0x2e00, 0x2e9f, 4, IGD_NO_REMAPPING, "Eaglelake"},
};

static const struct id_row *find_id(const struct id_row *rows, unsigned count,
				    u16 id)
{
	for (unsigned i = 0; i < count; i++)
		if (id >= rows[i].first && id <= rows[i].last)
			return &rows[i];
	return NULL;
}

static u32 of_bridge(const struct igd_input *in, unsigned offset, unsigned size)
{
	return pci_config_read(in->pci, HOST_BRIDGE, offset, size);
}

static u32 of_igd(const struct igd_input *in, unsigned offset, unsigned size)
{
	return pci_config_read(in->pci, IGD_BDF, offset, size);
}

static u64 of_igd_wide(const struct igd_input *in, unsigned offset)
{
	return of_igd(in, offset, 4) | (u64)of_igd(in, offset + 4, 4) << 32;
}

/* A new part has the newest layout that its registers fit, or none. */
static unsigned by_shape(const struct igd_input *in)
{
	u64 wide = of_igd_wide(in, DSM_WIDE) & ~MIB_MASK;
	u32 narrow = of_igd(in, DSM_NARROW, 4) & ~(u32)MIB_MASK;

	if (wide && wide < BIT(46) && !narrow)
		return 12;
	return narrow && narrow != ~(u32)MIB_MASK ? 9 : 0;
}

static const struct id_row *find_layout(struct igd *igd,
					const struct igd_input *in)
{
	u16 device = igd->function->device;
	const struct id_row *id = find_id(ids, ARRAY_SIZE(ids), device);
	const struct id_row *bridge =
		find_id(bridges, ARRAY_SIZE(bridges), igd->bridge);
	u64 number = in->options->igd_gen;

	igd->generation_source = number ? "igd-gen="
				 : id	? id->name
					: "registers";
	if (!number)
		number = id ? id->generation : by_shape(in);
	igd->quirks = (id ? id->quirks : 0) | (bridge ? bridge->quirks : 0);
	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++)
		if (number >= layouts[i].first && number <= layouts[i].last)
			igd->layout = &layouts[i];
	igd->generation = (u8)number;
	return id;
}

static int set_generation(struct igd *igd, const struct igd_input *in)
{
	u16 device = igd->function->device;
	const struct id_row *id = find_layout(igd, in);

	if (igd->layout && !(igd->quirks & IGD_UNSUPPORTED))
		return 0;
	if (!igd->layout && in->options->igd_gen)
		log_error("igd-gen=%lu: say 5 to 12", in->options->igd_gen);
	else if (id)
		log_error("igd: 8086:%04x (%s) is not supported", device,
			  id->name);
	else
		log_error("igd: 8086:%04x is not known and its registers do "
			  "not tell; say igd-gen=5 to 12",
			  device);
	return -ENOTSUP;
}

bool igd_is_one(const struct pci_function *f)
{
	return f && f->bdf == IGD_BDF && f->vendor == PCI_INTEL &&
	       f->class >> 8 == 3;
}

static int find(struct igd *igd, const struct igd_input *in)
{
	const struct pci_function *f = in->function;
	u32 bridge = of_bridge(in, PCI_VENDOR, 4);

	igd->function = f;
	igd->bridge = (u16)(bridge >> 16);
	for (unsigned i = 0; i < in->pci->count && !igd->pch; i++)
		if (in->pci->functions[i].class == CLASS_ISA_BRIDGE)
			igd->pch = in->pci->functions[i].device;
	if (igd_is_one(f))
		return 0;
	if (!f && (u16)bridge == PCI_INTEL &&
	    !(of_bridge(in, DEVEN, 4) & DEVEN_IGD))
		log_error("igd: firmware has switched 00:02.0 off (DEVEN "
			  "%08x); enable it in the firmware's setup",
			  of_bridge(in, DEVEN, 4));
	else
		log_error("igd: 00:02.0 is no Intel graphics; 'assign=' is for "
			  "other devices");
	return -ENODEV;
}

static int check_remapping(const struct igd *igd, const struct options *o)
{
	bool direct = o->igd_dma == DMA_DIRECT;

	if (direct && o->ram != RAM_IDENTITY)
		log_error("igd-dma=direct needs ram=identity: the graphics "
			  "use the host's addresses then");
	else if (igd->remapping_off && !direct && !options_unsafe_dma(o))
		log_error("igd: DMA remapping must stay off for this part; it "
			  "needs igd-dma=direct ram=identity: its DMA, and no "
			  "other's, then reaches all memory, Monocle's too");
	else
		return 0;
	return -ENOTSUP;
}

static bool is_ram(const struct boot_info *b, struct phys_range r)
{
	return boot_memory_kinds(b, r.base, r.size) & BIT(MEMORY_AVAILABLE);
}

static bool is_reserved(const struct boot_info *b, struct phys_range r)
{
	return !(boot_memory_kinds(b, r.base, r.size) &
		 ~(u32)(BIT(MEMORY_RESERVED) | BIT(MEMORY_NVS)));
}

static struct phys_range whole_pages(struct phys_range r)
{
	hpa_t base = ALIGN_DOWN(r.base, PAGE_SIZE);

	return (struct phys_range){base,
				   ALIGN_UP(r.base + r.size, PAGE_SIZE) - base};
}

/* The top of DRAM below which the range has to lie. */
static u64 top_of(const struct igd_input *in, const struct igd *igd,
		  struct phys_range r)
{
	u64 top;

	if (r.base < 4 * GIB)
		return igd->top ? igd->top : 4 * GIB;
	top = (of_bridge(in, TOUUD, 4) & ~(u32)MIB_MASK) |
	      (u64)of_bridge(in, TOUUD + 4, 4) << 32;
	return top && top < BIT(46) ? top : BIT(46);
}

static bool is_below(struct phys_range r, u64 top)
{
	return r.base < top && r.size <= top - r.base;
}

/* Stolen memory lies below the top of DRAM and outside what is RAM. */
static int check_stolen(const struct igd_input *in, const struct igd *igd,
			const char *name, struct phys_range r)
{
	u64 top = top_of(in, igd, r);

	if (!r.size)
		return 0;
	if (!is_below(r, top)) {
		log_error("igd: %s of %llu MiB at 0x%lx (GGC %04x) ends above "
			  "the top of memory 0x%lx",
			  name, r.size / MIB, r.base, igd->control, top);
		return -EINVAL;
	}
	if (!is_ram(in->boot, r))
		return 0;
	log_error("igd: %s 0x%lx-0x%lx lies in what the memory map calls RAM",
		  name, r.base, r.base + r.size);
	return -EINVAL;
}

static bool is_good(const struct igd_input *in, const struct igd *igd,
		    struct phys_range r)
{
	return r.base && r.size && is_below(r, top_of(in, igd, r)) &&
	       !is_ram(in->boot, r);
}

/* Nothing is refused for their sake: guests have done without them. */
static void read_mirrors(struct igd *igd, const struct igd_input *in)
{
	struct phys_range bar = {of_igd_wide(in, PCI_BAR0) & ~15ull,
				 MIRRORS_SIZE};
	struct phys_range dsm, gsm = {.size = 8 * MIB};
	volatile u8 *mmio = NULL;
	u32 control;

	if (bar.base && !is_ram(in->boot, bar) &&
	    of_igd(in, PCI_COMMAND, 2) & PCI_COMMAND_MEMORY)
		mmio = mmio_map(bar.base, bar.size);
	if (!mmio)
		return;
	control = mmio_read32(mmio + MIRROR_GGC);
	dsm.base = mmio_read64(mmio + MIRROR_DSM) & ~MIB_MASK;
	dsm.size = dsm_size_9(control);
	gsm.base = mmio_read64(mmio + MIRROR_GSM) & ~MIB_MASK;
	if (gsm_size_8(control) != gsm.size || !is_good(in, igd, dsm) ||
	    !is_good(in, igd, gsm))
		return;
	igd->dsm = dsm;
	igd->gsm = gsm;
	igd->gsm_unknown = false;
	igd->stolen_open = mmio_read32(mmio + STOLEN_ACCESS) == 1;
}

static void read_registers(struct igd *igd, const struct igd_input *in)
{
	const struct igd_layout *l = igd->layout;
	bool early = l->first == 5;
	u32 top = of_bridge(in, l->top, early ? 2 : 4);

	igd->control = early ? of_bridge(in, l->control, 2)
			     : of_igd(in, l->control, 2);
	igd->top = (early ? top << 16 : top) & ~(u32)MIB_MASK;
	igd->gsm.base = of_bridge(in, l->gsm, 4) & ~(u32)MIB_MASK;
	igd->gsm.size = l->gsm_size(igd->control);
	igd->gsm_unknown = igd->gsm.size && !igd->gsm.base;
	if (!igd->gsm.base)
		igd->gsm.size = 0;
	if (!(igd->quirks & IGD_STOLEN_IN_BAR)) {
		igd->dsm.base = l->dsm_wide ? of_igd_wide(in, l->dsm)
					    : of_igd(in, l->dsm, 4);
		igd->dsm.base &= ~MIB_MASK;
	}
	if (igd->dsm.base)
		igd->dsm.size = l->dsm_size(igd->control);
	if (igd->quirks & IGD_STOLEN_IN_BAR)
		read_mirrors(igd, in);
	igd->remapping_off = igd->quirks & IGD_NO_REMAPPING ||
			     (igd->quirks & IGD_SHADOW_GTT &&
			      !(igd->control & CONTROL_SHADOW_GTT));
	igd->vga = igd->function->class == CLASS_VGA &&
		   !(igd->control & CONTROL_VGA_DISABLE);
}

static int read_stolen(struct igd *igd, const struct igd_input *in)
{
	int err;

	read_registers(igd, in);
	err = check_stolen(in, igd, "stolen memory", igd->dsm);
	return err ? err : check_stolen(in, igd, "GTT memory", igd->gsm);
}

/* Memory of firmware's that may be looked at: not GSM, which would hang. */
static bool is_readable(const struct igd_input *in, const struct igd *igd,
			struct phys_range r)
{
	r = whole_pages(r);
	return is_reserved(in->boot, r) &&
	       !boot_ranges_overlap(r.base, r.size, igd->gsm.base,
				    igd->gsm.size);
}

static u64 field(const u8 *opregion, unsigned offset, unsigned size)
{
	u64 value = 0;

	memcpy(&value, opregion + offset, size);
	return value;
}

/* The VBT outside the OpRegion: RVDA is relative to it from 2.1 on. */
static void read_vbt(struct igd *igd, const struct igd_input *in,
		     const u8 *opregion)
{
	u64 rvda = field(opregion, OPREGION_RVDA, 8);
	u64 rvds = field(opregion, OPREGION_RVDS, 4);
	struct phys_range vbt = {rvda, rvds};

	igd->vbt_source = "mailbox 4";
	if (igd->opregion_version < 0x200 || !rvda || !rvds)
		return;
	if (igd->opregion_version >= 0x201)
		vbt.base += igd->asls;
	if (rvds <= VBT_MOST && rvda < BIT(46) && is_readable(in, igd, vbt)) {
		igd->vbt = vbt;
		igd->vbt_source = "RVDA";
	} else {
		log_warn("igd: the VBT's 0x%lx bytes at 0x%lx are not in "
			 "reserved memory; the guest does without them",
			 rvds, vbt.base);
	}
}

static int read_opregion(struct igd *igd, const struct igd_input *in)
{
	struct phys_range r = {of_igd(in, ASLS, 4), OPREGION_LEAST};
	const u8 *bytes;

	igd->asls = (u32)r.base;
	igd->vbt_source = "none";
	if (!igd->asls || igd->asls == ~0u) {
		log_warn("igd: firmware has made no OpRegion (ASLS %08x): no "
			 "VBT for the driver",
			 igd->asls);
		return 0;
	}
	if (!is_readable(in, igd, r)) {
		log_error("igd: the OpRegion at 0x%x is outside reserved "
			  "memory",
			  igd->asls);
		return -EINVAL;
	}
	bytes = phys_to_virt(r.base);
	if (strncmp((const char *)bytes, "IntelGraphicsMem", 16)) {
		log_warn("igd: no OpRegion at 0x%x (ASLS): its signature is "
			 "missing; the guest reads 0 there",
			 igd->asls);
		return 0;
	}
	r.size = field(bytes, OPREGION_SIZE, 4) * KIB;
	if (r.size < OPREGION_LEAST || r.size > OPREGION_MOST ||
	    !is_readable(in, igd, r)) {
		log_error("igd: the OpRegion at 0x%x says that it has %llu "
			  "KiB, which cannot be",
			  igd->asls, r.size / KIB);
		return -EINVAL;
	}
	igd->opregion = r;
	igd->opregion_version = (u16)field(bytes, OPREGION_VERSION, 2);
	read_vbt(igd, in, bytes);
	return 0;
}

static int read_rmrrs(struct igd *igd, const struct igd_input *in)
{
	if (in->rmrr_count > IGD_RMRRS) {
		log_error("igd: %u RMRRs; at most %u are understood",
			  in->rmrr_count, IGD_RMRRS);
		return -EINVAL;
	}
	for (unsigned i = 0; i < in->rmrr_count; i++) {
		struct phys_range r = whole_pages(in->rmrr[i]);

		if (is_ram(in->boot, r)) {
			log_error("igd: the RMRR 0x%lx-0x%lx lies in what the "
				  "memory map calls RAM",
				  r.base, r.base + r.size);
			return -EINVAL;
		}
		igd->rmrr[igd->rmrr_count++] = r;
	}
	return 0;
}

int igd_probe(struct igd *igd, const struct igd_input *in)
{
	int err;

	*igd = (struct igd){0};
	err = find(igd, in);
	if (!err)
		err = set_generation(igd, in);
	if (!err)
		err = read_stolen(igd, in);
	if (!err)
		err = check_remapping(igd, in->options);
	if (!err)
		err = read_opregion(igd, in);
	return err ? err : read_rmrrs(igd, in);
}

bool igd_picture(const struct igd_input *in, struct phys_range out[2])
{
	struct igd igd = {.function = in->function};

	out[0] = out[1] = (struct phys_range){0};
	if (!igd_is_one(in->function))
		return true;
	igd.bridge = (u16)(of_bridge(in, PCI_VENDOR, 4) >> 16);
	find_layout(&igd, in);
	if (!igd.layout)
		return true;
	read_registers(&igd, in);
	if (is_good(in, &igd, igd.dsm))
		out[0] = igd.dsm;
	if (is_good(in, &igd, igd.gsm))
		out[1] = igd.gsm;
	return !igd.remapping_off && in->options->igd_dma != DMA_DIRECT;
}

/* Linux: intel_uncore_fw_domains_init(), the domain "GT" */
u32 igd_forcewake(const struct igd *igd, u32 *ack)
{
	bool ivy_bridge = igd->function->device < 0x0400;

	*ack = igd->quirks & IGD_STOLEN_IN_BAR	    ? 0xdfc
	       : igd->generation == 6		    ? 0x130090
	       : igd->generation == 7 && ivy_bridge ? 0x130040
						    : 0x130044;
	return igd->generation < 6    ? 0
	       : igd->generation == 6 ? PCI_WAKE_SNB
				      : 0xa188;
}

static void log_range(const char *name, struct phys_range r)
{
	if (r.size)
		log_info("igd: %s 0x%lx-0x%lx, %llu KiB", name, r.base,
			 r.base + r.size, r.size / KIB);
	else
		log_info("igd: %s none", name);
}

void igd_log(const struct igd *igd)
{
	const struct pci_function *f = igd->function;

	log_info("igd: 00:02.0 8086:%04x revision %02x class %04x, host bridge "
		 "%04x, PCH %04x",
		 f->device, f->revision, f->class, igd->bridge, igd->pch);
	log_info("igd: generation %u (%s), GGC %04x, TOLUD 0x%lx",
		 igd->generation, igd->generation_source, igd->control,
		 igd->top);
	log_info("igd: legacy VGA %s",
		 igd->vga ? "decoded" : "not decoded: stays closed");
	log_range("stolen memory (DSM)", igd->dsm);
	if (igd->gsm_unknown)
		log_warn("igd: GTT memory (GSM) has a size in GGC, but no "
			 "base; RMRRs are for DMA alone");
	else
		log_range("GTT memory (GSM)", igd->gsm);
	log_info("igd: ASLS %08x", igd->asls);
	log_range("OpRegion", igd->opregion);
	if (igd->opregion.size)
		log_info("igd: OpRegion version %u.%u, VBT from %s",
			 igd->opregion_version >> 8,
			 igd->opregion_version & 255, igd->vbt_source);
	if (igd->vbt.size)
		log_range("extended VBT", igd->vbt);
	for (unsigned i = 0; i < MAX(igd->rmrr_count, 1u); i++)
		log_range("RMRR", igd->rmrr[i]);
	log_info("igd: DMA remapping %s",
		 igd->remapping_off ? "must stay off, and does" : "allowed");
}

/*
 * Without an OpRegion the guest must not look where ASLS points. The other
 * rows say once more what holds for all device-specific registers, so that no
 * capability of the host's list can change it.
 */
static const struct pci_policy_row policy[] = {
	{0xfc, 0xfc, PCI_HIDDEN, 0, 0, "no OpRegion: ASLS reads 0"},
	{0x50, 0x54, PCI_READ_THROUGH, 0, 0, "GGC and DEVEN: the bridge's"},
	{0x5c, 0x5c, PCI_READ_THROUGH, 0, 0, "BDSM: stolen memory is 1:1"},
	{0xc0, 0xc4, PCI_READ_THROUGH, 0, 0, "BDSM from generation 11 on"},
	{0xe8, 0xe8, PCI_READ_THROUGH, 0, 0,
	 "SWSCI: a write would raise an SMI or SCI of the host's firmware"},
	{0xfc, 0xfc, PCI_READ_THROUGH, 0, 0, "ASLS: the OpRegion is 1:1"},
};

const struct pci_policy_row *igd_policy(const struct igd *igd, unsigned *count)
{
	unsigned first = igd->opregion.size ? 1 : 0;

	*count = ARRAY_SIZE(policy) - first;
	return &policy[first];
}

static int pin(struct region_list *list, struct phys_range range,
	       struct region r)
{
	range = whole_pages(range);
	r.gpa = r.hpa = range.base;
	r.size = range.size;
	r.kind = REGION_DEVICE;
	return region_paint(list, r);
}

int igd_regions(const struct igd *igd, struct region_list *list)
{
	bool in_bar = igd->quirks & IGD_STOLEN_IN_BAR;
	/* First, and without the CPU: a read of it can freeze the machine. */
	struct region gsm = {.cpu = igd->stolen_open ? REGION_RW : 0,
			     .dma = REGION_RW,
			     .e820 = E820_RESERVED,
			     .name = "GTT memory (GSM)"};
	/* The driver's ACPI memory: cached as firmware has it. */
	static const struct region opregion = {.memtype = MEMTYPE_WB,
					       .e820 = E820_NVS,
					       .cpu = REGION_RW,
					       .name = "OpRegion"};
	static const struct region vbt = {.memtype = MEMTYPE_WB,
					  .e820 = E820_NVS,
					  .cpu = REGION_RW,
					  .name = "VBT"};
	struct region dsm = {.e820 = E820_RESERVED,
			     .cpu = in_bar && !igd->stolen_open ? 0 : REGION_RW,
			     .dma = REGION_RW,
			     .name = "stolen memory (DSM)"};
	struct region rmrr = {
		.e820 = E820_RESERVED, .dma = REGION_RW, .name = "RMRR"};
	int err = pin(list, igd->gsm, gsm);

	err = err ? err : pin(list, igd->opregion, opregion);
	err = err ? err : pin(list, igd->vbt, vbt);
	err = err ? err : pin(list, igd->dsm, dsm);
	/* They cover GSM, too, which has to be known to be left out. */
	rmrr.cpu = igd->gsm_unknown ? 0 : REGION_RW;
	for (unsigned i = 0; !err && i < igd->rmrr_count; i++)
		err = pin(list, igd->rmrr[i], rmrr);
	return err;
}
