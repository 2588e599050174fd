/* SPDX-License-Identifier: MIT */
/* Which of the host's functions the guest is given. */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "vmm/assign/assign_word.h"
#include "vmm/assign/assigned.h"
#include "vmm/devmodel/pci_bridges.h"

#define GET_IOMMU                                                          \
	"switch VT-d on in the firmware's setup (or iommu=off unsafe-dma " \
	"ram=identity: its DMA then reaches all memory, Monocle's too)"
#define NEEDS_IOMMU "needs an IOMMU: " GET_IOMMU

static bool is_chosen(const struct assignment *all, bdf_t bdf)
{
	for (unsigned i = 0; i < all->count; i++)
		if (all->functions[i].function->bdf == bdf)
			return true;
	return false;
}

static bool is_bridge(const struct pci_function *f)
{
	return f->header_type != 0 || f->class >> 8 == 6;
}

/* Where it cannot lie 1:1: in the guest's RAM, or its BIOS area. */
static bool has_rmrr_in_ram(const struct assignment *all,
			    const struct pci_function *f)
{
	const struct dmar_entry *e = NULL;

	while ((e = assigned_next_rmrr(all, f, e)))
		if (e->base < MIB || boot_memory_kinds(all->boot, e->base,
						       e->limit + 1 - e->base) &
					     BIT(MEMORY_AVAILABLE))
			return true;
	return false;
}

/* There, memory answers the CPU, which is another's. */
static bool has_bar_in_ram(const struct assignment *all,
			   const struct pci_function *f)
{
	for (unsigned i = 0; i < ARRAY_SIZE(f->bars); i++) {
		const struct pci_bar *bar = &f->bars[i];

		if (!bar->io && bar->base && bar->size &&
		    boot_memory_kinds(all->boot, bar->base, bar->size) &
			    BIT(MEMORY_AVAILABLE))
			return true;
	}
	return false;
}

/* PCI IDE Controller Specification 1.0, 2: a channel at the ports of ISA. */
static bool is_compatible_ide(const struct pci_host *pci,
			      const struct pci_function *f)
{
	return f->class == 0x0101 &&
	       (pci_config_read(pci, f->bdf, 9, 1) & 5) != 5;
}

/* The guest finds it by bridges of its own; and it has two at fixed places. */
static bool cannot_be_shown(const struct pci_host *pci,
			    const struct pci_function *f)
{
	const struct pci_function *above = f;

	while ((above = pci_bridge_above(pci, above->bdf)))
		if (above->header_type != PCI_HEADER_BRIDGE)
			return true;
	return f->bdf == HOST_BRIDGE_BDF || f->bdf == ISA_BRIDGE_BDF;
}

/* usb-firmware: what firmware says that it shares memory with. */
static bool is_left(const struct assignment *all, const struct pci_function *f)
{
	return all->options->usb_firmware && f->class == PCI_CLASS_USB &&
	       all->vtd && vtd_has_unit(all->vtd, f->bdf) &&
	       dmar_rmrr_of(all->vtd->dmar, all->pci, f->bdf, NULL);
}

static const char *memory_objection(const struct assignment *all,
				    struct pci_function *f)
{
	if (has_rmrr_in_ram(all, f))
		return "shares memory with firmware (an RMRR) below 1 MiB or "
		       "where the memory map says RAM";
	pci_size_bars(all->pci, f);
	if (has_bar_in_ram(all, f))
		return "has a BAR where the memory map says RAM";
	if (is_compatible_ide(all->pci, f))
		return "is in IDE's compatibility mode; switch SATA to AHCI in "
		       "the firmware's setup";
	return NULL;
}

bool assigned_is_direct(const struct assignment *all,
			const struct pci_function *f)
{
	return igd_is_one(f) && all->options->igd_dma == DMA_DIRECT;
}

static const char *iommu_objection(const struct assignment *all,
				   const struct pci_function *f)
{
	bool unit = all->vtd && vtd_has_unit(all->vtd, f->bdf);

	if (assigned_is_direct(all, f))
		return unit ? "has an IOMMU that is others', too, or that "
			      "firmware has left on: igd-dma=direct cannot be"
			    : NULL;
	if (all->vtd && !unit)
		return "is behind no IOMMU that is switched on: " GET_IOMMU;
	return all->vtd || options_unsafe_dma(all->options) ? NULL
							    : NEEDS_IOMMU;
}

const char *assigned_objection(const struct assignment *all,
			       struct pci_function *f)
{
	const char *why;

	if (is_bridge(f))
		return "is a bridge; assign what is behind it";
	if (igd_is_one(f) && !all->options->igd)
		return "is Intel's graphics; the option igd assigns it";
	if (f->class == 0x0700)
		return "is a serial port, which stays Monocle's: log=pci";
	if (cannot_be_shown(all->pci, f))
		return "stands where a guest would not find it";
	if (is_left(all, f))
		return "is left with its firmware (usb-firmware)";
	why = iommu_objection(all, f);
	return why ? why : memory_objection(all, f);
}

/* ISA lines that Monocle, or the chipset, drives (ACPI 5.2.12.5): the timers,
 * the keyboard and the mouse, COM1, ACPI's own. */
static bool is_taken(const struct assignment *all, u32 gsi)
{
	static const u8 lines[] = {0, 1, 2, 4, 8, 9, 12};

	for (unsigned i = 0; i < ARRAY_SIZE(lines); i++)
		if (host_irq_gsi(all->madt, lines[i]) == gsi)
			return true;
	for (unsigned i = 0; i < all->count; i++)
		if (all->functions[i].has_gsi && all->functions[i].gsi == gsi)
			return true;
	return false;
}

static u32 pin_of(const struct assignment *all, const struct pci_function *f)
{
	return pci_config_read(all->pci, f->bdf, PCI_INTERRUPT_PIN, 1);
}

/* Does firmware's note of another function's line say the same? */
static bool is_shared(const struct assignment *all,
		      const struct pci_function *f, u32 gsi)
{
	const struct pci_host *pci = all->pci;

	for (unsigned i = 0; i < pci->count; i++) {
		const struct pci_function *other = &pci->functions[i];

		if (other != f && pin_of(all, other) &&
		    pci_config_read(pci, other->bdf, PCI_INTERRUPT_LINE, 1) ==
			    gsi)
			return true;
	}
	return false;
}

/* PCI 3.0, 6.2.2 and 6.2.3: INTx that can be held back, and be looked at. */
static bool can_be_polled(const struct assignment *all,
			  const struct pci_function *f)
{
	const struct pci_host *pci = all->pci;
	u32 old = pci_config_read(pci, f->bdf, PCI_COMMAND, 2), new;

	/* Held back by firmware: not even for a moment does it raise its line */
	if (old & PCI_COMMAND_INTX_DISABLE)
		return true;
	pci_config_write(pci, f->bdf, PCI_COMMAND, 2,
			 old | PCI_COMMAND_INTX_DISABLE);
	new = pci_config_read(pci, f->bdf, PCI_COMMAND, 2);
	pci_config_write(pci, f->bdf, PCI_COMMAND, 2, old);
	return new &PCI_COMMAND_INTX_DISABLE;
}

/* The reason why its interrupts cannot be routed, or NULL. */
static const char *line_objection(const struct assignment *all,
				  const struct pci_function *f,
				  const struct assign_word *w)
{
	const struct pci_host *pci = all->pci;
	bool pin = pin_of(all, f);
	bool messages = pci_find_capability(pci, f->bdf, PCI_CAP_MSI) ||
			pci_find_capability(pci, f->bdf, PCI_CAP_MSIX);

	if (!w->has_gsi && pin && !messages && !can_be_polled(all, f))
		return "has neither MSI nor MSI-X: name the I/O APIC pin of "
		       "its line, assign=BB:DD.F,gsi=N";
	if (!w->has_gsi)
		return NULL;
	if (!pin)
		return "raises no INTx; leave out gsi=";
	if (!host_irq_has_gsi(all->madt, w->gsi))
		return "gsi= names no pin of an I/O APIC";
	if (is_taken(all, w->gsi))
		return "gsi= names a line that Monocle, the chipset or "
		       "another assigned function uses";
	if (is_shared(all, f, w->gsi))
		return "gsi= names a line that another function's Interrupt "
		       "Line register names, too";
	return NULL;
}

const char *assigned_line_objection(const struct assignment *all,
				    const struct pci_function *f)
{
	static const struct assign_word none = {0};

	return line_objection(all, f, &none);
}

/* " BB:DD.F" of each of its group that is not assigned; their number. */
static unsigned missing(const struct assignment *all, bdf_t bdf, char *text,
			size_t size)
{
	const struct pci_host *pci = all->pci;
	bdf_t group = pci_group(pci, bdf);
	unsigned count = 0;
	size_t used = 0;

	for (unsigned i = 0; i < pci->count; i++) {
		const struct pci_function *f = &pci->functions[i];

		if (f->bdf == bdf || is_bridge(f) || is_chosen(all, f->bdf) ||
		    pci_group(pci, f->bdf) != group)
			continue;
		count++;
		if (used < size)
			used += (size_t)format(text + used, size - used,
					       " %02x:%02x.%x",
					       BDF_ARGS(f->bdf));
	}
	return count;
}

static void choose(struct assignment *all, struct pci_function *f,
		   const struct assign_word *w)
{
	struct assigned *a = &all->functions[all->count++];

	*a = (struct assigned){.all = all,
			       .function = f,
			       .has_gsi = w->has_gsi,
			       .gsi = w->gsi};
	log_info("assigned: %02x:%02x.%x %04x:%04x class %04x",
		 BDF_ARGS(f->bdf), f->vendor, f->device, f->class);
}

static const char *objection(const struct assignment *all,
			     struct pci_function *f,
			     const struct assign_word *w)
{
	const char *why = assigned_objection(all, f);

	if (!why && all->count == ASSIGNED_MAX)
		why = "is one function too many";
	return why ? why : line_objection(all, f, w);
}

static int choose_named(struct assignment *all, const struct option_word *text,
			const struct assign_word *w)
{
	struct pci_host *pci = all->pci;
	const char *hint = "'help' lists the options, the log the functions";
	unsigned found = 0;

	for (unsigned i = 0; i < pci->count; i++) {
		struct pci_function *f = &pci->functions[i];
		const char *why = assign_hides_disks(f);

		/* What is meant may be a disk behind it. */
		hint = why ? why : hint;
		if (!assign_word_names(w, f))
			continue;
		found++;
		why = is_chosen(all, f->bdf) ? "is named twice"
					     : objection(all, f, w);
		if (why) {
			log_error("assign=%.*s: %02x:%02x.%x %s",
				  (int)text->length, text->text,
				  BDF_ARGS(f->bdf), why);
			return -EPERM;
		}
		choose(all, f, w);
	}
	if (found)
		return 0;
	log_error("assign=%.*s: no such function; %s", (int)text->length,
		  text->text, hint);
	return -ENODEV;
}

/* An exception that names nothing is a slip of the pen. */
static int check_exceptions(const struct assignment *all,
			    const struct assign_word *w)
{
	struct option_word but = w->but;
	bdf_t bdf;

	while (!assign_word_next_but(&but, &bdf))
		if (!pci_find(all->pci, bdf)) {
			log_error("assign=all,-%02x:%02x.%x: no such function",
				  BDF_ARGS(bdf));
			return -ENODEV;
		}
	return 0;
}

/* strict-groups: with those beside it, or not at all. */
static bool breaks_group(const struct assignment *all,
			 const struct assign_word *w,
			 const struct pci_function *f)
{
	struct pci_host *pci = all->pci;
	bdf_t group = pci_group(pci, f->bdf);

	for (unsigned i = 0; all->options->strict_groups && i < pci->count;
	     i++) {
		struct pci_function *o = &pci->functions[i];

		if (!is_bridge(o) && pci_group(pci, o->bdf) == group &&
		    !is_chosen(all, o->bdf) &&
		    (!assign_word_names(w, o) || assigned_objection(all, o)))
			return true;
	}
	return false;
}

/* What all leaves out is said, function by function. */
static int choose_all(struct assignment *all, const struct assign_word *w)
{
	struct pci_host *pci = all->pci;

	if (!all->vtd && !options_unsafe_dma(all->options)) {
		log_error("assign=all " NEEDS_IOMMU);
		return -EPERM;
	}
	for (unsigned i = 0; i < pci->count; i++) {
		struct pci_function *f = &pci->functions[i];
		const char *why;

		if (is_bridge(f) || is_chosen(all, f->bdf))
			continue;
		why = !assign_is_ordinary(f)	 ? "is assigned by name only"
		      : !assign_word_names(w, f) ? "is left out as told"
		      : breaks_group(all, w, f)
			      ? "cannot be isolated from those beside it"
			      : objection(all, f, w);
		if (why)
			log_write(assign_is_ordinary(f) ? LOG_WARN : LOG_INFO,
				  "assign=all: not %02x:%02x.%x, class %04x: "
				  "it %s",
				  BDF_ARGS(f->bdf), f->class, why);
		else
			choose(all, f, w);
	}
	return check_exceptions(all, w);
}

/* Those that are named, and when that is done, all the others. */
static int choose_words(struct assignment *all, bool every)
{
	const struct options *o = all->options;
	int err = 0;

	for (unsigned i = 0; !err && i < o->assign_count; i++) {
		const struct option_word *text = &o->assign[i];
		struct assign_word w;

		err = assign_word_parse(*text, &w);
		if (err)
			log_error("assign=%.*s: write BB:DD.F, VENDOR:DEVICE "
				  "or class=CCSS, in hexadecimal, behind it "
				  ",gsi=N; or all, behind it ,-BB:DD.F",
				  (int)text->length, text->text);
		else if (every && w.kind == ALL)
			err = choose_all(all, &w);
		else if (!every && w.kind != ALL)
			err = choose_named(all, text, &w);
	}
	return err;
}

bool assigned_is_beside(const struct assignment *all,
			const struct pci_function *f)
{
	bdf_t group = pci_group(all->pci, f->bdf);

	if (is_bridge(f) || is_chosen(all, f->bdf))
		return false;
	for (unsigned i = 0; i < all->count; i++)
		if (pci_group(all->pci, all->functions[i].function->bdf) ==
		    group)
			return true;
	return false;
}

/* Whose registers stay open to their neighbours: the chipset's needs them. */
static void warn_of_neighbours(const struct assignment *all)
{
	const struct pci_host *pci = all->pci;
	char text[100] = "";
	size_t used = 0;

	for (unsigned i = 0; all->vtd && i < pci->count; i++) {
		const struct pci_function *f = &pci->functions[i];

		if (assign_is_ordinary(f) || !assigned_is_beside(all, f))
			continue;
		if (used < sizeof(text))
			used += (size_t)format(text + used, sizeof(text) - used,
					       " %02x:%02x.%x",
					       BDF_ARGS(f->bdf));
	}
	if (used)
		log_warn("assign: what is assigned beside%s can reach their "
			 "registers past the IOMMU; strict-groups forbids it",
			 text);
}

/* Which are whole, or (strict-groups) have to be. */
static int check_groups(const struct assignment *all)
{
	char text[80];

	if (!all->options->strict_groups)
		warn_of_neighbours(all);
	for (unsigned i = 0; all->options->strict_groups && i < all->count;
	     i++) {
		bdf_t bdf = all->functions[i].function->bdf;

		if (!missing(all, bdf, text, sizeof(text)))
			continue;
		log_error("assign: %02x:%02x.%x cannot be isolated from%s; "
			  "assign these, too",
			  BDF_ARGS(bdf), text);
		return -EPERM;
	}
	return 0;
}

/* Its RMRRs count where there is remapping. */
static void add_rmrrs(struct assignment *all, struct igd_input *in)
{
	struct vtd *vtd = all->vtd;
	const struct dmar_entry *e = NULL;

	while (all->vtd &&
	       (e = dmar_rmrr_of(vtd->dmar, vtd->pci, IGD_BDF, e))) {
		if (in->rmrr_count < IGD_RMRRS)
			in->rmrr[in->rmrr_count] = (struct phys_range){
				e->base, e->limit + 1 - e->base};
		in->rmrr_count++;
	}
}

static int probe_igd(struct assignment *all)
{
	struct igd_input in = {
		.pci = all->pci,
		.function = pci_find(all->pci, IGD_BDF),
		.boot = all->boot,
		.options = all->options,
	};

	add_rmrrs(all, &in);
	return igd_probe(&all->igd, &in);
}

static int choose_igd(struct assignment *all)
{
	struct pci_function *f = pci_find(all->pci, IGD_BDF);
	static const struct assign_word display = {0};
	const char *why;
	int err;

	/* igd=closed is for the windows of any display. */
	if (all->options->igd == IGD_CLOSED && !igd_is_one(f))
		return 0;
	err = probe_igd(all);
	if (err)
		return err;
	why = assigned_objection(all, f);
	if (why) {
		log_error("igd: 00:02.0 %s", why);
		return -EPERM;
	}
	choose(all, f, &display);
	if (assigned_is_direct(all, f))
		log_warn("igd-dma=direct: 00:02.0 can read and write all "
			 "memory, Monocle's too");
	igd_log(&all->igd);
	all->display = f;
	all->vga = all->igd.vga;
	return 0;
}

/* strict-groups: a display that is not named, by itself. */
static bool can_be_apart(const struct assignment *all, bdf_t bdf)
{
	char text[80];

	if (!all->vtd || !all->options->strict_groups ||
	    !missing(all, bdf, text, sizeof(text)))
		return true;
	log_warn("display: %02x:%02x.%x cannot be isolated from%s; name all "
		 "of them with assign=",
		 BDF_ARGS(bdf), text);
	return false;
}

/* assign=all,-BB:DD.F is of displays, too. */
static bool is_left_out(const struct assignment *all,
			const struct pci_function *f)
{
	const struct options *o = all->options;
	struct assign_word w;

	for (unsigned i = 0; i < o->assign_count; i++)
		if (!assign_word_parse(o->assign[i], &w) && w.kind == ALL &&
		    assign_is_ordinary(f) && !assign_word_names(&w, f))
			return true;
	return false;
}

const char *assigned_display_objection(const struct assignment *all,
				       struct pci_function *f)
{
	if (igd_is_one(f))
		return "is Intel's graphics; the option igd assigns it";
	if (is_left_out(all, f))
		return "is left out as told";
	/* Where there is no IOMMU it gets no DMA. */
	return all->vtd ? assigned_objection(all, f) : memory_objection(all, f);
}

static void choose_display(struct assignment *all)
{
	static const struct assign_word display = {0};
	struct pci_host *pci = all->pci;

	for (unsigned i = 0; i < pci->count && !all->display; i++) {
		struct pci_function *f = &pci->functions[i];
		const char *why = NULL;

		if (f->class >> 8 != 3 || all->options->no_vga)
			continue;
		if (!is_chosen(all, f->bdf))
			why = assigned_display_objection(all, f);
		if (why) {
			log_warn("display: not %02x:%02x.%x: it %s",
				 BDF_ARGS(f->bdf), why);
			continue;
		}
		if (!is_chosen(all, f->bdf)) {
			if (all->count == ASSIGNED_MAX ||
			    !can_be_apart(all, f->bdf))
				break;
			choose(all, f, &display);
		}
		all->display = f;
		all->vga = f->class == 0x0300;
	}
	if (!all->display)
		log_info("display: none is assigned");
}

/* A bridge that the guest has to see, since it is on the way to a function. */
static int show_port(struct assignment *all, const struct pci_function *f)
{
	for (unsigned i = 0; i < all->port_count; i++)
		if (all->ports[i].function == f)
			return 0;
	if (all->port_count == PORTS_MAX) {
		log_error("assign: the bridge %02x:%02x.%x is one too many",
			  BDF_ARGS(f->bdf));
		return -ENOTSUP;
	}
	all->ports[all->port_count++] = (struct pci_port){
		.host = all->pci, .function = f, .cold = all->cold};
	return 0;
}

static int show_way_to(struct assignment *all, bdf_t bdf)
{
	const struct pci_host *pci = all->pci;
	const struct pci_function *above = pci_bridge_above(pci, bdf);
	int err = 0;

	for (; !err && above; above = pci_bridge_above(pci, above->bdf))
		err = show_port(all, above);
	return err;
}

/* Without them less works, and nobody would look for the reason there. */
static void name_companions(const struct assignment *all)
{
	for (unsigned i = 0; all->igd.function && i < all->pci->count; i++) {
		const struct pci_function *f = &all->pci->functions[i];
		const char *what = assign_companion(f);

		if (what && !is_chosen(all, f->bdf))
			log_info("igd: %02x:%02x.%x is not assigned, which its "
				 "driver works with (%s)",
				 BDF_ARGS(f->bdf), what);
	}
}

static int leave_one(struct assignment *all, struct pci_function *f)
{
	if (has_rmrr_in_ram(all, f)) {
		log_error("usb-firmware: %02x:%02x.%x shares memory with "
			  "firmware (an RMRR) below 1 MiB or where the memory "
			  "map says RAM; leave this word out",
			  BDF_ARGS(f->bdf));
		return -EPERM;
	}
	if (vtd_leave(all->vtd, f)) {
		log_error(
			"usb-firmware: what %02x:%02x.%x shares with firmware "
			"(an RMRR) is too large; leave this word out",
			BDF_ARGS(f->bdf));
		return -ERANGE;
	}
	log_info("usb-firmware: %02x:%02x.%x is left with its firmware",
		 BDF_ARGS(f->bdf));
	return 0;
}

static int leave_usb(struct assignment *all)
{
	struct pci_host *pci = all->pci;
	unsigned left = 0;
	int err = 0;

	for (unsigned i = 0; !err && i < pci->count; i++)
		if (is_left(all, &pci->functions[i])) {
			left++;
			err = leave_one(all, &pci->functions[i]);
		}
	if (all->options->usb_firmware && !left)
		log_warn("usb-firmware: no USB controller shares memory with "
			 "its firmware (an RMRR) here: all are taken from it");
	return err;
}

int assigned_choose(struct assignment *all)
{
	const struct options *o = all->options;
	int err = leave_usb(all);

	err = err || !o->igd ? err : choose_igd(all);
	err = err ? err : choose_words(all, false);
	all->named = all->count;
	err = err ? err : choose_words(all, true);
	if (err)
		return err;
	choose_display(all);
	name_companions(all);
	err = check_groups(all);
	if (!err && o->igd == IGD_CLOSED && !all->display) {
		log_error("igd=closed: there is no display whose memory could "
			  "be closed");
		err = -ENODEV;
	}
	for (unsigned i = 0; !err && i < all->count; i++)
		err = show_way_to(all, all->functions[i].function->bdf);
	for (unsigned i = 0; !err && i < all->count; i++)
		err = assigned_irq_init(&all->functions[i], all->pci);
	return err;
}
