/* SPDX-License-Identifier: MIT */
/* Which of the host's functions the guest is given. */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "vmm/assign/assign_word.h"
#include "vmm/assign/assigned.h"
#include "vmm/machine.h"

#define NEEDS_IOMMU                                                            \
	"needs an IOMMU: switch VT-d on in the firmware's setup (or "          \
	"iommu=off unsafe-dma ram=identity: its DMA then reaches all memory, " \
	"Monocle's too)"

static bool is_chosen(const struct machine *m, bdf_t bdf)
{
	for (unsigned i = 0; i < m->assigned_count; i++)
		if (m->assigned[i].function->bdf == bdf)
			return true;
	return false;
}

static bool is_bridge(const struct pci_function *f)
{
	return f->header_type != 0 || f->class >> 8 == 6;
}

const struct dmar_entry *assigned_next_rmrr(const struct host *h,
					    const struct pci_function *f,
					    const struct dmar_entry *e)
{
	/* USB's lapse, and the graphics' are judged by their own rules. */
	if (!h->has_vtd || pci_can_take_over(&h->pci, f) || igd_is_one(f))
		return NULL;
	return dmar_rmrr_of(h->vtd.dmar, h->vtd.pci, f->bdf, e);
}

/* Where it cannot lie 1:1: in the guest's RAM, or its BIOS area. */
static bool has_rmrr_in_ram(const struct host *h, const struct pci_function *f)
{
	const struct dmar_entry *e = NULL;

	while ((e = assigned_next_rmrr(h, f, e)))
		if (e->base < MIB || boot_memory_kinds(&h->boot, e->base,
						       e->limit + 1 - e->base) &
					     BIT(MEMORY_AVAILABLE))
			return true;
	return false;
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

const char *assigned_objection(const struct machine *m,
			       const struct pci_function *f)
{
	const struct host *h = m->host;

	if (is_bridge(f))
		return "is a bridge; assign what is behind it";
	if (igd_is_one(f) && !m->host->options.igd)
		return "is Intel's graphics; the option igd assigns it";
	if (f->class == 0x0700)
		return "is a serial port, and may be the console's";
	if (cannot_be_shown(&h->pci, f))
		return "stands where a guest would not find it";
	if (h->has_vtd && !vtd_has_unit((struct vtd *)&h->vtd, f->bdf))
		return "is behind no IOMMU that is switched on; its DMA would "
		       "reach everything";
	if (!h->has_vtd && !options_unsafe_dma(&h->options))
		return NEEDS_IOMMU;
	if (has_rmrr_in_ram(h, f))
		return "shares memory with firmware (an RMRR) where the memory "
		       "map says RAM";
	return NULL;
}

/* ISA lines that Monocle, or the chipset, drives (ACPI 5.2.12.5): the timers,
 * the keyboard and the mouse, COM1, ACPI's own. */
static bool is_taken(const struct machine *m, u32 gsi)
{
	static const u8 lines[] = {0, 1, 2, 4, 8, 9, 12};

	for (unsigned i = 0; i < ARRAY_SIZE(lines); i++)
		if (host_irq_gsi(&m->host->madt, lines[i]) == gsi)
			return true;
	for (unsigned i = 0; i < m->assigned_count; i++)
		if (m->assigned[i].has_gsi && m->assigned[i].gsi == gsi)
			return true;
	return false;
}

static u32 pin_of(const struct machine *m, const struct pci_function *f)
{
	return pci_config_read(&m->host->pci, f->bdf, PCI_INTERRUPT_PIN, 1);
}

/* Does firmware's note of another function's line say the same? */
static bool is_shared(const struct machine *m, const struct pci_function *f,
		      u32 gsi)
{
	const struct pci_host *pci = &m->host->pci;

	for (unsigned i = 0; i < pci->count; i++) {
		const struct pci_function *other = &pci->functions[i];

		if (other != f && pin_of(m, other) &&
		    pci_config_read(pci, other->bdf, PCI_INTERRUPT_LINE, 1) ==
			    gsi)
			return true;
	}
	return false;
}

/* PCI 3.0, 6.2.2 and 6.2.3: INTx that can be held back, and be looked at. */
static bool can_be_polled(const struct machine *m, const struct pci_function *f)
{
	const struct pci_host *pci = &m->host->pci;
	u32 old = pci_config_read(pci, f->bdf, PCI_COMMAND, 2), new;

	pci_config_write(pci, f->bdf, PCI_COMMAND, 2,
			 old ^ PCI_COMMAND_INTX_DISABLE);
	new = pci_config_read(pci, f->bdf, PCI_COMMAND, 2);
	pci_config_write(pci, f->bdf, PCI_COMMAND, 2, old);
	return (old ^ new) & PCI_COMMAND_INTX_DISABLE;
}

/* The reason why its interrupts cannot be routed, or NULL. */
static const char *line_objection(const struct machine *m,
				  const struct pci_function *f,
				  const struct assign_word *w)
{
	const struct pci_host *pci = &m->host->pci;
	bool pin = pin_of(m, f);
	bool messages = pci_find_capability(pci, f->bdf, PCI_CAP_MSI) ||
			pci_find_capability(pci, f->bdf, PCI_CAP_MSIX);

	if (!w->has_gsi && pin && !messages && !can_be_polled(m, f))
		return "has neither MSI nor MSI-X: name the I/O APIC pin of "
		       "its line, assign=BB:DD.F,gsi=N";
	if (!w->has_gsi)
		return NULL;
	if (!pin)
		return "raises no INTx; leave out gsi=";
	if (!host_irq_has_gsi(&m->host->madt, w->gsi))
		return "gsi= names no pin of an I/O APIC";
	if (is_taken(m, w->gsi))
		return "gsi= names a line that Monocle, the chipset or "
		       "another assigned function uses";
	if (is_shared(m, f, w->gsi))
		return "gsi= names a line that another function's Interrupt "
		       "Line register names, too";
	return NULL;
}

const char *assigned_line_objection(const struct machine *m,
				    const struct pci_function *f)
{
	static const struct assign_word none = {0};

	return line_objection(m, f, &none);
}

/* " BB:DD.F" of each of its group that is not assigned; their number. */
static unsigned missing(const struct machine *m, bdf_t bdf, char *text,
			size_t size)
{
	const struct pci_host *pci = &m->host->pci;
	bdf_t group = pci_group(pci, bdf);
	unsigned count = 0;
	size_t used = 0;

	for (unsigned i = 0; i < pci->count; i++) {
		const struct pci_function *f = &pci->functions[i];

		if (f->bdf == bdf || is_bridge(f) || is_chosen(m, f->bdf) ||
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

static void choose(struct machine *m, struct pci_function *f,
		   const struct assign_word *w)
{
	struct assigned *a = &m->assigned[m->assigned_count++];

	*a = (struct assigned){.machine = m,
			       .function = f,
			       .has_gsi = w->has_gsi,
			       .gsi = w->gsi};
	pci_size_bars(&m->host->pci, f);
	log_info("assigned: %02x:%02x.%x %04x:%04x class %04x",
		 BDF_ARGS(f->bdf), f->vendor, f->device, f->class);
}

static const char *objection(const struct machine *m,
			     const struct pci_function *f,
			     const struct assign_word *w)
{
	const char *why = assigned_objection(m, f);

	if (!why && m->assigned_count == ASSIGNED_MAX)
		why = "is one function too many";
	return why ? why : line_objection(m, f, w);
}

static int choose_named(struct machine *m, const struct option_word *text,
			const struct assign_word *w)
{
	struct pci_host *pci = &m->host->pci;
	unsigned found = 0;

	for (unsigned i = 0; i < pci->count; i++) {
		struct pci_function *f = &pci->functions[i];
		const char *why;

		if (!assign_word_names(w, f))
			continue;
		found++;
		why = is_chosen(m, f->bdf) ? "is named twice"
					   : objection(m, f, w);
		if (why) {
			log_error("assign=%.*s: %02x:%02x.%x %s",
				  (int)text->length, text->text,
				  BDF_ARGS(f->bdf), why);
			return -EPERM;
		}
		choose(m, f, w);
	}
	if (found)
		return 0;
	log_error("assign=%.*s: no such function; 'help' lists the options, "
		  "the log the functions",
		  (int)text->length, text->text);
	return -ENODEV;
}

/* An exception that names nothing is a slip of the pen. */
static int check_exceptions(const struct machine *m,
			    const struct assign_word *w)
{
	struct option_word but = w->but;
	bdf_t bdf;

	while (!assign_word_next_but(&but, &bdf))
		if (!pci_find(&m->host->pci, bdf)) {
			log_error("assign=all,-%02x:%02x.%x: no such function",
				  BDF_ARGS(bdf));
			return -ENODEV;
		}
	return 0;
}

/* strict-groups: with those beside it, or not at all. */
static bool breaks_group(const struct machine *m, const struct assign_word *w,
			 const struct pci_function *f)
{
	const struct pci_host *pci = &m->host->pci;
	bdf_t group = pci_group(pci, f->bdf);

	for (unsigned i = 0; i < pci->count; i++) {
		const struct pci_function *o = &pci->functions[i];

		if (!is_bridge(o) && pci_group(pci, o->bdf) == group &&
		    !is_chosen(m, o->bdf) &&
		    (!assign_word_names(w, o) || assigned_objection(m, o)))
			return m->host->options.strict_groups;
	}
	return false;
}

/* What all leaves out is said, function by function. */
static int choose_all(struct machine *m, const struct assign_word *w)
{
	struct pci_host *pci = &m->host->pci;

	if (!m->host->has_vtd && !options_unsafe_dma(&m->host->options)) {
		log_error("assign=all " NEEDS_IOMMU);
		return -EPERM;
	}
	for (unsigned i = 0; i < pci->count; i++) {
		struct pci_function *f = &pci->functions[i];
		const char *why;

		if (is_bridge(f) || is_chosen(m, f->bdf))
			continue;
		why = !assign_is_ordinary(f)	 ? "is assigned by name only"
		      : !assign_word_names(w, f) ? "is left out as told"
		      : breaks_group(m, w, f)
			      ? "cannot be isolated from those beside it"
			      : objection(m, f, w);
		if (why)
			log_write(assign_is_ordinary(f) ? LOG_WARN : LOG_INFO,
				  "assign=all: not %02x:%02x.%x, class %04x: "
				  "it %s",
				  BDF_ARGS(f->bdf), f->class, why);
		else
			choose(m, f, w);
	}
	return check_exceptions(m, w);
}

/* Those that are named, and when that is done, all the others. */
static int choose_words(struct machine *m, bool all)
{
	const struct options *o = &m->host->options;
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
		else if (all && w.kind == ALL)
			err = choose_all(m, &w);
		else if (!all && w.kind != ALL)
			err = choose_named(m, text, &w);
	}
	return err;
}

bool assigned_is_beside(const struct machine *m, const struct pci_function *f)
{
	bdf_t group = pci_group(&m->host->pci, f->bdf);

	if (is_bridge(f) || is_chosen(m, f->bdf))
		return false;
	for (unsigned i = 0; i < m->assigned_count; i++)
		if (pci_group(&m->host->pci, m->assigned[i].function->bdf) ==
		    group)
			return true;
	return false;
}

/* Whose registers stay open to their neighbours: the chipset's needs them. */
static void warn_of_neighbours(const struct machine *m)
{
	const struct pci_host *pci = &m->host->pci;
	char text[100] = "";
	size_t used = 0;

	for (unsigned i = 0; m->host->has_vtd && i < pci->count; i++) {
		const struct pci_function *f = &pci->functions[i];

		if (assign_is_ordinary(f) || !assigned_is_beside(m, f))
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
static int check_groups(const struct machine *m)
{
	char text[80];

	if (!m->host->options.strict_groups)
		warn_of_neighbours(m);
	for (unsigned i = 0;
	     m->host->options.strict_groups && i < m->assigned_count; i++) {
		bdf_t bdf = m->assigned[i].function->bdf;

		if (!missing(m, bdf, text, sizeof(text)))
			continue;
		log_error("assign: %02x:%02x.%x cannot be isolated from%s; "
			  "assign these, too",
			  BDF_ARGS(bdf), text);
		return -EPERM;
	}
	return 0;
}

/* Its RMRRs count where there is remapping. */
static void add_rmrrs(struct machine *m, struct igd_input *in)
{
	struct vtd *vtd = &m->host->vtd;
	const struct dmar_entry *e = NULL;

	while (m->host->has_vtd &&
	       (e = dmar_rmrr_of(vtd->dmar, vtd->pci, IGD_BDF, e))) {
		if (in->rmrr_count < IGD_RMRRS)
			in->rmrr[in->rmrr_count] = (struct phys_range){
				e->base, e->limit + 1 - e->base};
		in->rmrr_count++;
	}
}

int assigned_probe_igd(struct machine *m)
{
	struct igd_input in = {
		.pci = &m->host->pci,
		.function = pci_find(&m->host->pci, IGD_BDF),
		.boot = &m->host->boot,
		.options = &m->host->options,
	};

	add_rmrrs(m, &in);
	return igd_probe(&m->igd, &in);
}

static int choose_igd(struct machine *m)
{
	struct pci_function *f = pci_find(&m->host->pci, IGD_BDF);
	static const struct assign_word display = {0};
	const char *why;
	int err;

	/* igd=closed is for the windows of any display. */
	if (m->host->options.igd == IGD_CLOSED && !igd_is_one(f))
		return 0;
	err = assigned_probe_igd(m);
	if (err)
		return err;
	why = assigned_objection(m, f);
	if (why) {
		log_error("igd: 00:02.0 %s", why);
		return -EPERM;
	}
	choose(m, f, &display);
	igd_log(&m->igd);
	m->display_function = f;
	m->vga = m->igd.vga;
	return 0;
}

/* strict-groups: a display that is not named, by itself. */
static bool can_be_apart(const struct machine *m, bdf_t bdf)
{
	char text[80];

	if (!m->host->has_vtd || !m->host->options.strict_groups ||
	    !missing(m, bdf, text, sizeof(text)))
		return true;
	log_warn("display: %02x:%02x.%x cannot be isolated from%s; name all "
		 "of them with assign=",
		 BDF_ARGS(bdf), text);
	return false;
}

static void choose_display(struct machine *m)
{
	static const struct assign_word display = {0};
	struct pci_host *pci = &m->host->pci;

	for (unsigned i = 0; i < pci->count && !m->display_function; i++) {
		struct pci_function *f = &pci->functions[i];

		if (f->class >> 8 != 3 || m->host->options.no_vga)
			continue;
		if (igd_is_one(f)) {
			log_warn("00:02.0 is Intel's graphics; the option igd "
				 "assigns it");
			continue;
		}
		if (!is_chosen(m, f->bdf)) {
			if (m->assigned_count == ASSIGNED_MAX ||
			    !can_be_apart(m, f->bdf))
				break;
			choose(m, f, &display);
		}
		m->display_function = f;
		m->vga = f->class == 0x0300;
	}
	if (!m->display_function)
		log_info("display: none is assigned");
}

/* A bridge that the guest has to see, since it is on the way to a function. */
static int show_port(struct machine *m, const struct pci_function *f)
{
	for (unsigned i = 0; i < m->port_count; i++)
		if (m->ports[i].function == f)
			return 0;
	if (m->port_count == PORTS_MAX) {
		log_error("assign: the bridge %02x:%02x.%x is one too many",
			  BDF_ARGS(f->bdf));
		return -ENOTSUP;
	}
	m->ports[m->port_count++].function = f;
	return 0;
}

static int show_way_to(struct machine *m, bdf_t bdf)
{
	const struct pci_host *pci = &m->host->pci;
	const struct pci_function *above = pci_bridge_above(pci, bdf);
	int err = 0;

	for (; !err && above; above = pci_bridge_above(pci, above->bdf))
		err = show_port(m, above);
	return err;
}

int assigned_choose(struct machine *m)
{
	const struct options *o = &m->host->options;
	int err = o->igd ? choose_igd(m) : 0;

	err = err ? err : choose_words(m, false);
	err = err ? err : choose_words(m, true);
	if (err)
		return err;
	choose_display(m);
	err = check_groups(m);
	if (!err && o->igd == IGD_CLOSED && !m->display_function) {
		log_error("igd=closed: there is no display whose memory could "
			  "be closed");
		err = -ENODEV;
	}
	for (unsigned i = 0; !err && i < m->assigned_count; i++)
		err = show_way_to(m, m->assigned[i].function->bdf);
	for (unsigned i = 0; !err && i < m->assigned_count; i++)
		err = assigned_irq_init(&m->assigned[i], &m->host->pci);
	return err;
}
