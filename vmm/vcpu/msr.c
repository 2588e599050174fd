/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu/msr.h"

#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "kernel/string.h"
#include "vmm/vcpu/exits.h"
#include "vmm/vcpu/guest_cpuid.h"

enum open {
	OPEN_READ = 1,
	OPEN_WRITE = 2,
	OPEN_BOTH = 3,
	OPEN_RESET = 7, /* both, and by RESET 0 (SDM table 10-1) */
};

struct open_row {
	u32 msr;
	enum open open;
	u32 leaf7_edx; /* only if the host's CPUID.7:EDX has one of these */
	const char *reason;
};

static const struct open_row open_rows[] = {
	{MSR_TSC, OPEN_READ, 0, "the guest's TSC is the host's"},
	{MSR_SYSENTER_CS, OPEN_BOTH, 0, "switched by the VMCS"},
	{MSR_SYSENTER_ESP, OPEN_BOTH, 0, "switched by the VMCS"},
	{MSR_SYSENTER_EIP, OPEN_BOTH, 0, "switched by the VMCS"},
	{MSR_PAT, OPEN_BOTH, 0, "switched by the VMCS"},
	{MSR_EFER, OPEN_READ, 0, "switched by the VMCS; writes are checked"},
	{MSR_FS_BASE, OPEN_BOTH, 0, "switched by the VMCS"},
	{MSR_GS_BASE, OPEN_BOTH, 0, "switched by the VMCS"},
	{MSR_KERNEL_GS_BASE, OPEN_RESET, 0, "Monocle never uses it"},
	{MSR_STAR, OPEN_RESET, 0, "Monocle never uses it"},
	{MSR_LSTAR, OPEN_RESET, 0, "Monocle never uses it"},
	{MSR_CSTAR, OPEN_RESET, 0, "Monocle never uses it"},
	{MSR_FMASK, OPEN_RESET, 0, "Monocle never uses it"},
	{MSR_TSC_AUX, OPEN_RESET, 0, "Monocle never uses it"},
	{MSR_SPEC_CTRL, OPEN_RESET, 1u << 26 | 1u << 27 | 1u << 31,
	 "the guest's own protection; Monocle only runs slower"},
	{MSR_PRED_CMD, OPEN_WRITE, 1u << 26, "a command, no state"},
	{MSR_FLUSH_CMD, OPEN_WRITE, 1u << 28, "a command, no state"},
	/* Where the CPU has none of these, it raises #GP itself. */
	{0xe7, OPEN_READ, 0, "MPERF: what the CPU has done"},
	{0xe8, OPEN_READ, 0, "APERF"},
	{MSR_PERF_STATUS, OPEN_READ, 0, "PERF_STATUS: the speed that it has"},
	{0x19c, OPEN_READ, 0, "THERM_STATUS: its heat"},
	{0x1a2, OPEN_READ, 0, "TEMPERATURE_TARGET: heat is told from there"},
	{0x1ad, OPEN_READ, 0, "TURBO_RATIO_LIMIT: what it can do"},
	{0x1b0, OPEN_BOTH, 0, "ENERGY_PERF_BIAS: a wish"},
	{0x1b1, OPEN_READ, 0, "PACKAGE_THERM_STATUS"},
	{MSR_PM_ENABLE, OPEN_BOTH, 0, "HWP is the guest's: it is alone"},
	{MSR_HWP_CAPABILITIES, OPEN_READ, 0, "what it can do"},
	{MSR_HWP_REQUEST, OPEN_BOTH, 0, "a wish, in what it can do"},
	{0x777, OPEN_READ, 0, "HWP_STATUS"},
	{0x3f8, OPEN_READ, 0, "time in package C3"},
	{0x3f9, OPEN_READ, 0, "time in package C6"},
	{0x3fa, OPEN_READ, 0, "time in package C7"},
	{0x3fc, OPEN_READ, 0, "time in core C3"},
	{0x3fd, OPEN_READ, 0, "time in core C6"},
	{0x3fe, OPEN_READ, 0, "time in core C7"},
	{0x60d, OPEN_READ, 0, "time in package C2"},
	{0x630, OPEN_READ, 0, "time in package C8"},
	{0x631, OPEN_READ, 0, "time in package C9"},
	{0x632, OPEN_READ, 0, "time in package C10"},
	{0x660, OPEN_READ, 0, "time in core C1"},
	{0x606, OPEN_READ, 0, "RAPL: its units"},
	{0x610, OPEN_READ, 0, "RAPL: the limit, which stays the firmware's"},
	{0x611, OPEN_READ, 0, "RAPL: energy of the package"},
	{0x614, OPEN_READ, 0, "RAPL: power that the package is made for"},
	{0x619, OPEN_READ, 0, "RAPL: energy of the memory"},
	{0x639, OPEN_READ, 0, "RAPL: energy of the cores"},
	{0x641, OPEN_READ, 0, "RAPL: energy of the graphics"},
	{0x648, OPEN_READ, 0, "CONFIG_TDP: its levels"},
	{0x649, OPEN_READ, 0, "CONFIG_TDP"},
	{0x64a, OPEN_READ, 0, "CONFIG_TDP"},
	{0x64b, OPEN_READ, 0, "CONFIG_TDP: the one that is chosen"},
	{0x64c, OPEN_READ, 0, "TURBO_ACTIVATION_RATIO"},
	{0x64d, OPEN_READ, 0, "RAPL: energy of the platform"},
};

/* Whether the CPU has one of these features, or none is needed. */
static bool is_there(u32 leaf7_edx)
{
	return !leaf7_edx || leaf7_edx & cpuid(7, 0).edx;
}

/* SDM 25.6.9: four bitmaps of 1 KiB; a set bit exits. */
static void open_bit(u8 *bitmap, u32 msr, bool write)
{
	u32 n = msr & 0x1fff;
	u32 offset = (msr >= 0xc0000000 ? 1024u : 0) + (write ? 2048u : 0);

	bitmap[offset + n / 8] &= (u8) ~(1u << n % 8);
}

void msr_bitmap_fill(void *bitmap)
{
	memset(bitmap, 0xff, PAGE_SIZE);
	for (unsigned i = 0; i < ARRAY_SIZE(open_rows); i++) {
		const struct open_row *row = &open_rows[i];

		if (!is_there(row->leaf7_edx))
			continue;
		if (row->open & OPEN_READ)
			open_bit(bitmap, row->msr, false);
		if (row->open & OPEN_WRITE)
			open_bit(bitmap, row->msr, true);
	}
}

void msr_bitmap_open_apic(void *bitmap)
{
	static const u8 written[] = {LAPIC_TPR, LAPIC_EOI, LAPIC_SELF_IPI};

	for (unsigned reg = 0; reg < LAPIC_REGISTERS; reg++)
		if (lapic_is_plain(reg))
			open_bit(bitmap, MSR_X2APIC + reg, false);
	for (unsigned i = 0; i < ARRAY_SIZE(written); i++)
		open_bit(bitmap, MSR_X2APIC + written[i], true);
}

void msr_reset(void)
{
	for (unsigned i = 0; i < ARRAY_SIZE(open_rows); i++)
		if (open_rows[i].open == OPEN_RESET &&
		    is_there(open_rows[i].leaf7_edx))
			wrmsr(open_rows[i].msr, 0);
}

enum on_write { WRITE_GP, WRITE_DROP, WRITE_ZERO };

struct fixed_row {
	u32 msr;
	enum on_write write;
	u32 leaf7_edx; /* as in struct open_row */
	u64 host;      /* reads give these bits of the host's, */
	u64 value;     /* and these */
	const char *name;
};

/*
 * What IA32_ARCH_CAPABILITIES says of the CPU's faults (SDM 4, table 2-2).
 * Not: its bits that announce a further MSR (TSX_CTRL, MCU_OPT_CTRL,
 * XAPIC_DISABLE_STATUS ...), which a guest would then go and read.
 */
#define ARCH_CAPABILITIES_SHOWN 0x400000001d1ae17full

static const struct fixed_row fixed_rows[] = {
	/* A guest that sets the time-stamp counter keeps the host's. */
	{MSR_TSC, WRITE_DROP, 0, ~0ull, 0, "TSC"},
	{0x17, WRITE_GP, 0, 0, 0, "PLATFORM_ID"},
	{MSR_FEATURE_CONTROL, WRITE_GP, 0, 0, 1, "FEATURE_CONTROL"},
	/* No update in a guest; 0x79 is the trigger. */
	{0x79, WRITE_DROP, 0, 0, 0, "BIOS_UPDT_TRIG"},
	{MSR_MICROCODE, WRITE_DROP, 0, ~0ull, 0, "BIOS_SIGN_ID"},
	{MSR_ARCH_CAPABILITIES, WRITE_GP, 1u << 29, ARCH_CAPABILITIES_SHOWN, 0,
	 "ARCH_CAPABILITIES"},
	/*
	 * Fast strings; no performance monitoring (bits 11, 12: none). As the
	 * host has it: thermal control, P-states, MONITOR, turbo off.
	 */
	{MSR_MISC_ENABLE, WRITE_DROP, 0, BIT(3) | BIT(16) | BIT(18) | BIT(38),
	 0x1801, "MISC_ENABLE"},
	/* No bit that announces a further MSR or a limit to set: 28 to 31. */
	{MSR_PLATFORM_INFO, WRITE_GP, 0, ~0xf0000000ull, 0, "PLATFORM_INFO"},
	/* What the firmware allows of C-states stays. */
	{0xe2, WRITE_DROP, 0, ~0ull, 0, "PKG_CST_CONFIG_CONTROL"},
	{0x1fc, WRITE_DROP, 0, ~0ull, 0, "POWER_CTL"},
	/* Its interrupts would be the host's. */
	{0x19b, WRITE_DROP, 0, 0, 0, "THERM_INTERRUPT"},
	{0x1b2, WRITE_DROP, 0, 0, 0, "PACKAGE_THERM_INTERRUPT"},
	{0x179, WRITE_GP, 0, 0, 0, "MCG_CAP: no bank"},
	{0x17a, WRITE_ZERO, 0, 0, 0, "MCG_STATUS"},
	{MSR_XSS, WRITE_ZERO, 0, 0, 0, "XSS"},
};

static int fixed_access(void *dev, struct bus_access *a)
{
	const struct fixed_row *row = dev;
	u64 host = 0;

	if (!a->write) {
		/* Architectural, but an emulated host may lack it. */
		if (row->host)
			(void)rdmsr_safe(row->msr, &host);
		a->value = row->value | (host & row->host);
		return 0;
	}
	if (row->write == WRITE_GP || (row->write == WRITE_ZERO && a->value))
		return -EFAULT;
	return 0;
}

/* Of the VMCS; BTF alone stands for no feature that CPUID would show. */
static int debugctl_access(void *dev, struct bus_access *a)
{
	(void)dev;
	if (!a->write)
		a->value = vmcs_read64(VMCS_GUEST_DEBUGCTL);
	else if (a->value & ~(u64)DEBUGCTL_BTF)
		return -EFAULT;
	else
		vmcs_write64(VMCS_GUEST_DEBUGCTL, a->value);
	return 0;
}

/*
 * The ratio that is asked for, bits 15:8, and bit 32, no turbo (SDM 4, table
 * 2-2). Where bits 7:0 hold a voltage (Silvermont), or the ratio (Westmere),
 * those of PERF_STATUS are not 0, and writes are dropped. Linux has no net.
 */
static int perf_ctl_access(void *dev, struct bus_access *a)
{
	u64 status;

	(void)dev;
	if (!a->write)
		(void)rdmsr_safe(MSR_PERF_CTL, &a->value);
	else if (!rdmsr_safe(MSR_PERF_STATUS, &status) && !(status & 0xff))
		wrmsr(MSR_PERF_CTL, a->value & (0xff00 | BIT(32)));
	return 0;
}

int msr_init(struct bus *bus)
{
	int err;

	for (unsigned i = 0; i < ARRAY_SIZE(fixed_rows); i++) {
		const struct fixed_row *row = &fixed_rows[i];

		if (!is_there(row->leaf7_edx))
			continue;
		/* Rows are const; the handler only reads through dev. */
		err = bus_register(bus, BUS_MSR, row->msr, row->msr,
				   fixed_access, (void *)(u64)row, row->name);
		if (err)
			return err;
	}
	err = bus_register(bus, BUS_MSR, MSR_PERF_CTL, MSR_PERF_CTL,
			   perf_ctl_access, NULL, "PERF_CTL");
	return err ? err
		   : bus_register(bus, BUS_MSR, MSR_DEBUGCTL, MSR_DEBUGCTL,
				  debugctl_access, NULL, "DEBUGCTL");
}

enum exit_action exit_rdmsr(struct vcpu *v)
{
	struct bus_access a = {.addr = (u32)v->gpr[GPR_RCX], .size = 8};

	if (bus_dispatch(v->bus, BUS_MSR, &a))
		return EXIT_GP;
	v->gpr[GPR_RAX] = (u32)a.value;
	v->gpr[GPR_RDX] = a.value >> 32;
	return EXIT_SKIP;
}

/* SDM 2.2.1: LME only with paging off; LMA is the CPU's own. */
static enum exit_action write_efer(struct vcpu *v, u64 value)
{
	u64 old = vmcs_read64(VMCS_GUEST_EFER);

	if (value & ~v->vm->features.efer_allowed)
		return EXIT_GP;
	if (((value ^ old) & EFER_LME) && (vmcs_readn(VMCS_GUEST_CR0) & CR0_PG))
		return EXIT_GP;
	value = (value & ~(u64)EFER_LMA) | (old & EFER_LMA);
	vmcs_write64(VMCS_GUEST_EFER, value);
	return EXIT_SKIP;
}

enum exit_action exit_wrmsr(struct vcpu *v)
{
	struct bus_access a = {
		.addr = (u32)v->gpr[GPR_RCX],
		.size = 8,
		.write = true,
		.value = v->gpr[GPR_RDX] << 32 | (u32)v->gpr[GPR_RAX],
	};

	/* The one that comes by far most often: SDM 10.12.1.2, 10.8.5. */
	if (a.addr == MSR_X2APIC_EOI && !a.value && lapic_is_x2apic(v->lapic)) {
		lapic_eoi(v->lapic);
		return EXIT_SKIP;
	}
	if (a.addr == MSR_EFER)
		return write_efer(v, a.value);
	return bus_dispatch(v->bus, BUS_MSR, &a) ? EXIT_GP : EXIT_SKIP;
}
