/* SPDX-License-Identifier: MIT */
/* Port I/O: SDM table 28-5 and 28.2.5. */
#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "kernel/string.h"
#include "vmm/vcpu/exits.h"

/* Elements of a repeated string instruction done in one exit. */
#define STRING_BURST 128

/* SDM table 28-5 */
#define IO_IN BIT(3)
#define IO_STRING BIT(4)
#define IO_REP BIT(5)

struct io_exit {
	unsigned size;
	bool in, rep;
	u16 port;
};

static struct io_exit decode(u64 q)
{
	return (struct io_exit){
		.size = (unsigned)(q & 7) + 1,
		.in = q & IO_IN,
		.rep = q & IO_REP,
		.port = (u16)(q >> 16),
	};
}

static u64 address_mask(void)
{
	/* Instruction information, bits 9:7: 16, 32 or 64 bits. */
	switch (vmcs_read32(VMCS_EXIT_INSTRUCTION) >> 7 & 7) {
	case 0:
		return 0xffff;
	case 1:
		return 0xffffffff;
	default:
		return ~0ull;
	}
}

static void step(struct vcpu *v, unsigned reg, u64 mask, u64 delta)
{
	u64 old = v->gpr[reg];
	u64 value = (old + delta) & mask;

	/* A 32-bit result clears the upper half, a 16-bit one does not. */
	v->gpr[reg] = mask == 0xffff ? (old & ~mask) | value : value;
}

/* The page at hand: translated once, for the guest does not run meanwhile. */
struct page {
	gva_t gva;
	u8 *host;
};

/* Of two pages; or at a device's registers, or where nothing is. */
static int odd_element(struct vcpu *v, const struct io_exit *io, gva_t gva)
{
	struct bus_access a = {
		.addr = io->port, .size = io->size, .write = !io->in};
	bool device;
	int err;

	/* A page must take the data before the device gives it. */
	err = vcpu_read_linear(v, gva, &a.value, io->size,
			       io->in ? GUEST_WRITE : GUEST_READ);
	device = err == -EIO;
	if (device)
		err = io->in ? 0
			     : vcpu_access(v, gva, io->size, false, &a.value);
	if (err)
		return err;
	vm_dispatch(v->vm, BUS_PORT, &a);
	if (!io->in)
		return 0;
	return device ? vcpu_access(v, gva, io->size, true, &a.value)
		      : vcpu_write_linear(v, gva, &a.value, io->size, 0);
}

static int one_element(struct vcpu *v, const struct io_exit *io, gva_t gva,
		       struct page *page)
{
	struct bus_access a = {
		.addr = io->port, .size = io->size, .write = !io->in};
	u64 offset = gva & PAGE_MASK;

	if (offset + io->size > PAGE_SIZE)
		return odd_element(v, io, gva);
	if (!page->host || page->gva != gva - offset) {
		u8 *host;
		int err = vcpu_linear_ptr(v, gva, io->size,
					  io->in ? GUEST_WRITE : GUEST_READ,
					  &host);

		if (err == -EIO)
			return odd_element(v, io, gva);
		if (err)
			return err;
		*page = (struct page){gva - offset, host - offset};
	}
	if (!io->in)
		memcpy(&a.value, page->host + offset, io->size);
	vm_dispatch(v->vm, BUS_PORT, &a);
	if (io->in)
		memcpy(page->host + offset, &a.value, io->size);
	return 0;
}

/* Apart, for what it needs on the stack all other I/O would save. */
static NOINLINE enum exit_action string_io(struct vcpu *v, u64 qualification)
{
	const struct io_exit exit = decode(qualification), *io = &exit;
	u64 mask = address_mask();
	u64 delta = io->size;
	unsigned reg = io->in ? GPR_RDI : GPR_RSI;
	gva_t base = vmcs_readn(VMCS_GUEST_LINEAR) - (v->gpr[reg] & mask);
	struct page page = {0};
	bool wide = vcpu_long_mode();

	if (vmcs_readn(VMCS_GUEST_RFLAGS) & RFLAGS_DF)
		delta = -delta;
	for (unsigned i = 0; i < STRING_BURST; i++) {
		gva_t gva;
		int err;

		if (io->rep && !(v->gpr[GPR_RCX] & mask))
			return EXIT_SKIP;
		gva = base + (v->gpr[reg] & mask);
		err = one_element(v, io, wide ? gva : (u32)gva, &page);
		if (err)
			return err == -EFAULT ? EXIT_RESUME : EXIT_STOP;
		step(v, reg, mask, delta);
		if (!io->rep)
			return EXIT_SKIP;
		step(v, GPR_RCX, mask, ~0ull);
	}
	/* The rest after the events that are due: RIP stays. */
	vcpu_unblock();
	return v->gpr[GPR_RCX] & mask ? EXIT_RESUME : EXIT_SKIP;
}

enum exit_action exit_io(struct vcpu *v)
{
	u64 q = vmcs_readn(VMCS_QUALIFICATION);
	struct bus_access a = {
		.addr = (u16)(q >> 16),
		.size = (unsigned)(q & 7) + 1,
		.write = !(q & IO_IN),
		.value = v->gpr[GPR_RAX],
	};
	u64 mask = ~0ull >> (64 - 8 * a.size);

	if (q & IO_STRING)
		return string_io(v, q);
	a.value &= mask;
	vm_dispatch(v->vm, BUS_PORT, &a);
	if (!a.write && a.size == 4)
		v->gpr[GPR_RAX] = (u32)a.value;
	else if (!a.write)
		v->gpr[GPR_RAX] = (v->gpr[GPR_RAX] & ~mask) | (a.value & mask);
	else if (a.addr == HYPERCALL_PORT && a.size == 4 &&
		 v->gpr[GPR_RAX] >> 16 == HYPERCALL_BASE >> 16)
		return exit_hypercall(v);
	return EXIT_SKIP;
}
