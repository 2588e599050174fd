/* SPDX-License-Identifier: MIT */
/*
 * Messages of assigned functions: which the guest has, as MSI or in its MSI-X
 * table; their host vectors and remapping entries; those that arrive, and those
 * that are kept because the guest has just masked them.
 */
#include "arch/x86/io.h"
#include "kernel/log.h"
#include "kernel/percpu.h"
#include "kernel/traps.h"
#include "vmm/assign/assigned.h"

enum {
	MSI_CONTROL = 2,
	MSI_ENABLE = 1,
	MSIX_CONTROL = 2,
	MSIX_ENABLE = 0x8000,
	MSIX_MASKED = 0x4000,
	ENTRY_CONTROL = 3, /* dword of an MSI-X entry */
	ENTRY_MASKED = 1,
};

/* Masks, then the enable bit, which has to do where there are no masks. */
static void host_msi_follow(const struct assigned *a)
{
	unsigned pending = a->config.msi_pending;
	unsigned at = a->config.msi + MSI_CONTROL;
	u32 mask = a->mode == IRQ_MSI ? pci_assigned_msi(&a->config).mask : 0;
	u32 old, control;

	if (!a->served)
		return;
	old = assigned_read(a, at, 2);
	control = old & ~(u32)MSI_ENABLE;
	if (pending)
		assigned_write(a, pending - 4u, 4, a->held ? ~0u : mask);
	if (pending || !a->held)
		control |= MSI_ENABLE;
	if (control != old)
		assigned_write(a, at, 2, control);
}

void assigned_msix_control(const struct assigned *a, u32 state)
{
	unsigned at = a->config.msix + MSIX_CONTROL;
	u32 control =
		assigned_read(a, at, 2) & ~(u32)(MSIX_ENABLE | MSIX_MASKED);

	assigned_write(a, at, 2, control | state);
}

/* Function Mask is the guest's; each entry has its own (PCI 3.0, 6.8.2). */
static void host_msix_follow(const struct assigned *a)
{
	bool masked;

	pci_assigned_msix(&a->config, &masked);
	assigned_msix_control(a, MSIX_ENABLE |
					 (masked || a->held ? MSIX_MASKED : 0));
}

void assigned_messages_follow(const struct assigned *a)
{
	if (a->mode == IRQ_MSIX)
		host_msix_follow(a);
	else if (a->mode == IRQ_MSI || a->mode == IRQ_INTX)
		host_msi_follow(a);
}

/* PCI 3.0, 6.8.2: the guest's entry n; false: it is masked. */
static bool msix_message(const struct assigned *a, unsigned n, u64 *address,
			 u32 *data)
{
	const u32 *entry = a->messages[n].entry_copy;
	bool all_masked, on = pci_assigned_msix(&a->config, &all_masked);

	*address = entry[0] | (u64)entry[1] << 32;
	*data = entry[2];
	return on && !all_masked && !(entry[ENTRY_CONTROL] & ENTRY_MASKED);
}

/* Where message n goes; false: the guest has it masked. */
static bool guest_message(const struct assigned *a, unsigned n, u64 *address,
			  u32 *data)
{
	struct pci_msi msi;

	if (a->mode == IRQ_MSIX)
		return msix_message(a, n, address, data);
	msi = pci_assigned_msi(&a->config);
	*address = msi.address;
	*data = (msi.data & ~(msi.count - 1)) | n;
	return msi.enabled && !(msi.mask >> n & 1);
}

void assigned_show_pending(struct assigned *a)
{
	u32 pending = 0;

	for (unsigned n = 0; n < MIN(a->message_count, 32u); n++)
		pending |= (u32)a->messages[n].pending << n;
	if (a->mode == IRQ_MSI)
		pci_assigned_set_pending(&a->config, pending);
}

static void deliver(struct assigned_message *msg)
{
	struct assigned *a = msg->owner;
	unsigned n = (unsigned)(msg - a->messages);
	u64 address;
	u32 data;

	if (a->mode == IRQ_INTX)
		ioapic_pulse(a->all->ioapic, a->line);
	else if (guest_message(a, n, &address, &data))
		a->all->virq->send_msi(a->all->virq->ctx, address, data);
	else
		msg->pending = a->some_pending = true;
}

void assigned_deliver_pending(struct assigned *a)
{
	if (!a->some_pending)
		return;
	a->some_pending = false;
	for (unsigned n = 0; n < a->message_count; n++) {
		struct assigned_message *msg = &a->messages[n];
		bool pending = msg->pending;

		msg->pending = false;
		if (pending)
			deliver(msg);
	}
	assigned_show_pending(a);
}

bool assigned_count(struct assigned *a)
{
	u64 now = rdtsc(), hz = a->all->tsc_hz;

	a->stats.interrupts++;
	if (a->held || !storm_count(&a->storm, now, hz))
		return false;
	a->stats.storms++;
	if (a->storm.storms == 1)
		log_warn("%02x:%02x.%x: %lu interrupts a second: they are held "
			 "for %u ms each time",
			 BDF_ARGS(a->function->bdf), a->storm.rate, STORM_MS);
	a->held = true;
	a->release = now + storm_ticks(hz);
	assigned_timer_by(a->all, a->release);
	return true;
}

void assigned_timer_by(struct assignment *all, u64 now)
{
	vtimer_set(&all->vm->clock, &all->timer, MIN(all->timer.deadline, now));
}

/* On the host's vector of the first, or of another one in its row. */
static void message_arrived(void *ctx, unsigned vector)
{
	struct assigned_message *first = ctx;
	struct assigned *a = first->owner;

	if (first->vector < 0) /* it was on its way */
		return;
	if (assigned_count(a))
		assigned_messages_follow(a);
	/* Wherever they are, the first's is a multiple of their number. */
	deliver(first + (vector & (first->count - 1u)));
	if (a->some_pending)
		assigned_show_pending(a);
}

/* No unit remaps its messages: they name the CPU, by a vector of all. */
static bool is_plain(const struct assigned *a)
{
	struct vtd *vtd = a->all->vtd;

	return !vtd || !vtd->remapping || !vtd_has_unit(vtd, a->function->bdf);
}

struct percpu *assigned_cpu(u32 apic_id)
{
	struct percpu *cpu = percpu_of_guest(apic_id);

	return cpu ? cpu : percpu_at(0);
}

static struct percpu *destination(const struct assigned_message *msg)
{
	const struct assigned *a = msg->owner;
	const struct virq *virq = a->all->virq;
	u64 address;
	u32 data;

	if (a->mode == IRQ_INTX)
		return assigned_cpu(ioapic_target(a->all->ioapic, a->line));
	(void)guest_message(a, (unsigned)(msg - a->messages), &address, &data);
	return assigned_cpu(virq->msi_target(virq->ctx, address, data));
}

void assigned_disarm(struct assigned_message *first, unsigned count)
{
	for (struct assigned_message *all = first; all < first + count; all++) {
		if (all->entry >= 0)
			vtd_irq_free(all->owner->all->vtd,
				     (unsigned)all->entry);
		if (all->vector >= 0)
			host_irq_free(is_plain(all->owner) ? NULL : all->cpu,
				      (unsigned)all->vector);
		all->entry = all->vector = -1;
		all->pending = false;
	}
}

static void place(struct assigned_message *first, int vector,
		  struct percpu *cpu)
{
	for (unsigned n = 0; n < first->count; n++) {
		first[n].vector = vector + (int)n;
		first[n].cpu = cpu;
	}
}

/* Their entries, which may be live already, name the place that they have. */
static int remap(struct assigned_message *first)
{
	struct vtd *vtd = first->owner->all->vtd;
	int entry = first->entry;
	int err;

	if (entry < 0)
		entry = vtd_irq_alloc(vtd, first->owner->function->bdf,
				      first->count);
	err = MIN(entry, 0);
	for (unsigned n = 0; !err && n < first->count; n++) {
		first[n].entry = entry + (int)n;
		err = vtd_irq_set(vtd, (unsigned)first[n].entry,
				  (u8)first[n].vector, first->cpu->apic_id,
				  false);
	}
	return err;
}

/* It has no vector left: another CPU takes them, and sends them on. */
static void tell_crowded(struct assignment *all, const struct percpu *cpu)
{
	if (!all->crowded)
		log_warn("CPU %u has no vector left; some interrupts for it "
			 "come by way of another CPU",
			 cpu->index);
	all->crowded = true;
}

static int take_vectors(struct assigned_message *first, struct percpu **cpu)
{
	const struct percpu *wanted = *cpu;
	int vector = host_irq_alloc_block(*cpu, first->count, message_arrived,
					  first);

	for (unsigned i = 0; vector < 0 && i < CPUS_MAX; i++) {
		*cpu = percpu_at(i);
		if (*cpu && (*cpu)->runs_guest)
			vector = host_irq_alloc_block(*cpu, first->count,
						      message_arrived, first);
	}
	if (vector >= 0 && *cpu != wanted)
		tell_crowded(first->owner->all, wanted);
	return vector;
}

int assigned_arm(struct assigned_message *first, unsigned count,
		 struct vtd_msi *out)
{
	bool plain = is_plain(first->owner);
	struct percpu *cpu = destination(first);
	int vector, err;

	first->count = (u8)count;
	vector = plain ? host_irq_alloc_block(NULL, count, message_arrived,
					      first)
		       : take_vectors(first, &cpu);
	if (vector < 0)
		return vector;
	place(first, vector, cpu);
	*out = vtd_msi_plain((u8)vector, cpu->apic_id);
	if (plain)
		return 0;
	err = remap(first);
	if (err)
		assigned_disarm(first, count);
	else
		*out = vtd_irq_msi((unsigned)first->entry, count);
	return err;
}

int assigned_aim(struct assigned_message *first, struct vtd_msi *out)
{
	struct percpu *cpu = destination(first), *old = first->cpu;
	int last = first->vector, vector = last;

	if (last < 0) {
		int err = assigned_arm(first, 1, out);

		return err ? err : 1;
	}
	if (cpu == old)
		return 0;
	if (is_plain(first->owner)) {
		place(first, vector, cpu);
		*out = vtd_msi_plain((u8)vector, cpu->apic_id);
		return 1;
	}
	vector =
		host_irq_alloc_block(cpu, first->count, message_arrived, first);
	if (vector < 0) {
		tell_crowded(first->owner->all, cpu);
		return 0;
	}
	place(first, vector, cpu);
	/* Once no entry names it; what it has sent by then is served. */
	if (!remap(first))
		for (unsigned n = 0; n < first->count; n++)
			host_irq_free(old, (unsigned)last + n);
	return 0;
}

void assigned_unserved(struct assigned *a, unsigned n)
{
	if (!a->reported)
		log_warn("%02x:%02x.%x: no vector is left for its message %u; "
			 "it and some others do not arrive",
			 BDF_ARGS(a->function->bdf), n);
	a->reported = true;
}
