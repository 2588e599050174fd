/* SPDX-License-Identifier: MIT */
/* Which of the host's functions the guest is given. */
#include "arch/x86/errno.h"
#include "kernel/log.h"
#include "kernel/string.h"
#include "vmm/assigned.h"
#include "vmm/machine.h"

static int hex(const char **p, const char *end, unsigned digits, u32 *value)
{
	for (*value = 0; digits; digits--, (*p)++) {
		char c = *p < end ? **p : ' ';

		if (c >= '0' && c <= '9')
			*value = *value * 16 + (u32)(c - '0');
		else if (c >= 'a' && c <= 'f')
			*value = *value * 16 + (u32)(c - 'a' + 10);
		else if (c >= 'A' && c <= 'F')
			*value = *value * 16 + (u32)(c - 'A' + 10);
		else
			return -EINVAL;
	}
	return 0;
}

/* What one assign= word names. */
struct selection {
	enum { BY_ADDRESS, BY_ID, BY_CLASS } kind;
	u32 a, b, c;
	bool has_gsi; /* the host's line of its INTx */
	u32 gsi;
};

/* ",gsi=N" at the word's end; without it the word stays as it is. */
static int parse_gsi(struct option_word *w, struct selection *s)
{
	static const char name[] = ",gsi=";
	size_t n = 0, digits = 0;

	while (n < w->length && w->text[n] != ',')
		n++;
	if (n == w->length)
		return 0;
	for (size_t i = n; i < w->length; i++) {
		char c = w->text[i];

		if (i - n < sizeof(name) - 1) {
			if (c != name[i - n])
				return -EINVAL;
			continue;
		}
		if (c < '0' || c > '9' || ++digits > 3)
			return -EINVAL;
		s->gsi = s->gsi * 10 + (u32)(c - '0');
	}
	s->has_gsi = true;
	w->length = n;
	return digits ? 0 : -EINVAL;
}

static int parse(struct option_word word, struct selection *s)
{
	const char *p = word.text, *end;
	const struct option_word *w = &word;

	if (parse_gsi(&word, s))
		return -EINVAL;
	end = p + w->length;
	if (w->length == 10 && !strncmp(p, "class=", 6)) {
		s->kind = BY_CLASS;
		p += 6;
		return hex(&p, end, 4, &s->a);
	}
	if (w->length == 9 && p[4] == ':') {
		s->kind = BY_ID;
		if (hex(&p, end, 4, &s->a))
			return -EINVAL;
		p++;
		return hex(&p, end, 4, &s->b);
	}
	s->kind = BY_ADDRESS;
	if (w->length != 7 || p[2] != ':' || p[5] != '.' ||
	    hex(&p, end, 2, &s->a))
		return -EINVAL;
	p++;
	if (hex(&p, end, 2, &s->b))
		return -EINVAL;
	p++;
	return hex(&p, end, 1, &s->c) || s->b > 31 || s->c > 7 ? -EINVAL : 0;
}

static bool matches(const struct selection *s, const struct pci_function *f)
{
	switch (s->kind) {
	case BY_ADDRESS:
		return f->bdf == BDF(s->a, s->b, s->c);
	case BY_ID:
		return f->vendor == s->a && f->device == s->b;
	case BY_CLASS:
		return f->class == s->a;
	}
	return false;
}

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

const char *assigned_objection(const struct machine *m,
			       const struct pci_function *f)
{
	const struct host *h = m->host;

	if (is_bridge(f))
		return "is a bridge; assign what is behind it";
	if (is_chosen(m, f->bdf))
		return "is named twice";
	if (igd_is_one(f) && !m->host->options.igd)
		return "is Intel's graphics; the option igd assigns it";
	if (m->assigned_count == ASSIGNED_MAX)
		return "is one function too many";
	if (f->class == 0x0700)
		return "is a serial port, and may be the console's";
	if (h->has_vtd && !vtd_has_unit((struct vtd *)&h->vtd, f->bdf))
		return "is behind no IOMMU; its DMA would reach everything";
	if (!h->has_vtd && !options_unsafe_dma(&h->options))
		return "needs an IOMMU: switch VT-d on in the firmware's setup "
		       "(or iommu=off unsafe-dma ram=identity: its DMA then "
		       "reaches all memory, Monocle's too)";
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

/* The reason why its interrupts cannot be routed, or NULL. */
static const char *line_objection(const struct machine *m,
				  const struct pci_function *f,
				  const struct selection *s)
{
	const struct pci_host *pci = &m->host->pci;
	bool pin = pin_of(m, f);
	bool messages = pci_find_capability(pci, f->bdf, PCI_CAP_MSI) ||
			pci_find_capability(pci, f->bdf, PCI_CAP_MSIX);

	if (!s->has_gsi && pin && !messages)
		return "has neither MSI nor MSI-X: name the I/O APIC pin of "
		       "its line, assign=BB:DD.F,gsi=N";
	if (!s->has_gsi)
		return NULL;
	if (!pin)
		return "raises no INTx; leave out gsi=";
	if (!host_irq_has_gsi(&m->host->madt, s->gsi))
		return "gsi= names no pin of an I/O APIC";
	if (is_taken(m, s->gsi))
		return "gsi= names a line that Monocle, the chipset or "
		       "another assigned function uses";
	if (is_shared(m, f, s->gsi))
		return "gsi= names a line that another function's Interrupt "
		       "Line register names, too";
	return NULL;
}

static void choose(struct machine *m, struct pci_function *f)
{
	struct assigned *a = &m->assigned[m->assigned_count++];

	*a = (struct assigned){.machine = m, .function = f};
	pci_size_bars(&m->host->pci, f);
	log_info("assigned: %02x:%02x.%x %04x:%04x class %04x",
		 BDF_ARGS(f->bdf), f->vendor, f->device, f->class);
}

static int choose_word(struct machine *m, const struct option_word *w)
{
	struct pci_host *pci = &m->host->pci;
	struct selection s = {0};
	unsigned found = 0;

	if (parse(*w, &s)) {
		log_error("assign=%.*s: write BB:DD.F, VENDOR:DEVICE or "
			  "class=CCSS, in hexadecimal; behind it ,gsi=N",
			  (int)w->length, w->text);
		return -EINVAL;
	}
	for (unsigned i = 0; i < pci->count; i++) {
		struct pci_function *f = &pci->functions[i];
		const char *why;

		if (!matches(&s, f))
			continue;
		found++;
		why = assigned_objection(m, f);
		if (!why)
			why = line_objection(m, f, &s);
		if (why) {
			log_error("assign=%.*s: %02x:%02x.%x %s",
				  (int)w->length, w->text, BDF_ARGS(f->bdf),
				  why);
			return -EPERM;
		}
		choose(m, f);
		m->assigned[m->assigned_count - 1].has_gsi = s.has_gsi;
		m->assigned[m->assigned_count - 1].gsi = s.gsi;
	}
	if (found)
		return 0;
	log_error("assign=%.*s: no such function; 'help' lists the options, "
		  "the log the functions",
		  (int)w->length, w->text);
	return -ENODEV;
}

/* " BB:DD.F" of each that would have to be assigned with it; their number. */
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

static int check_groups(const struct machine *m)
{
	char text[80];

	for (unsigned i = 0; i < m->assigned_count; i++) {
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
	choose(m, f);
	igd_log(&m->igd);
	m->display_function = f;
	m->vga = m->igd.vga;
	return 0;
}

/* A display that is not named has to be a group by itself. */
static bool can_be_apart(const struct machine *m, bdf_t bdf)
{
	char text[80];

	if (!m->host->has_vtd || !missing(m, bdf, text, sizeof(text)))
		return true;
	log_warn("display: %02x:%02x.%x cannot be isolated from%s; name all "
		 "of them with assign=",
		 BDF_ARGS(bdf), text);
	return false;
}

static void choose_display(struct machine *m)
{
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
			choose(m, f);
		}
		m->display_function = f;
		m->vga = f->class == 0x0300;
	}
	if (!m->display_function)
		log_info("display: none is assigned");
}

static bool is_shown(const struct machine *m, bdf_t bdf)
{
	for (unsigned i = 0; i < m->port_count; i++)
		if (m->ports[i].function->bdf == bdf)
			return true;
	return is_chosen(m, bdf) || bdf == HOST_BRIDGE_BDF ||
	       bdf == ISA_BRIDGE_BDF;
}

/* A bridge that the guest has to see, since it is on the way to a function. */
static int show_port(struct machine *m, const struct pci_function *f)
{
	if (is_shown(m, f->bdf))
		return 0;
	if (f->header_type != PCI_HEADER_BRIDGE || m->port_count == PORTS_MAX) {
		log_error("assign: the bridge %02x:%02x.%x cannot be shown",
			  BDF_ARGS(f->bdf));
		return -ENOTSUP;
	}
	m->ports[m->port_count++].function = f;
	return 0;
}

/* PCI 3.0, 3.2.2.3.4: nobody looks for others where function 0 is not. */
static int show_function_0(struct machine *m, bdf_t bdf)
{
	bdf_t zero = bdf & 0xfff8;
	const struct pci_function *f = pci_find(&m->host->pci, zero);

	if (is_shown(m, zero))
		return 0;
	if (f && f->header_type == PCI_HEADER_BRIDGE)
		return show_port(m, f);
	log_error("assign: a guest finds %02x:%02x.%x by way of function 0 "
		  "only; assign that, too",
		  BDF_ARGS(bdf));
	return -EPERM;
}

static int show_way_to(struct machine *m, bdf_t bdf)
{
	const struct pci_host *pci = &m->host->pci;
	const struct pci_function *above = pci_bridge_above(pci, bdf);
	int err = show_function_0(m, bdf);

	for (; !err && above; above = pci_bridge_above(pci, above->bdf)) {
		err = show_port(m, above);
		if (!err)
			err = show_function_0(m, above->bdf);
	}
	return err;
}

int assigned_choose(struct machine *m)
{
	const struct options *o = &m->host->options;
	int err = o->igd ? choose_igd(m) : 0;

	for (unsigned i = 0; !err && i < o->assign_count; i++)
		err = choose_word(m, &o->assign[i]);
	if (err)
		return err;
	err = check_groups(m);
	if (!err)
		choose_display(m);
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
