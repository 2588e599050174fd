/* SPDX-License-Identifier: MIT */
/*
 * Guest memory as Monocle reads and writes it: by guest-physical address
 * through the region list, or by linear address through the guest's own page
 * tables (SDM volume 3, chapter 4). Only what the guest itself may reach is
 * reached.
 */
#ifndef VMM_CORE_GUEST_MEM_H
#define VMM_CORE_GUEST_MEM_H

#include "arch/x86/types.h"
#include "kernel/region.h"

/*
 * Reads take RAM and ROM, writes RAM. -EFAULT: a byte of the range is
 * neither; then nothing was read or written.
 */
int guest_read(const struct region_list *list, gpa_t gpa, void *buf, u64 size);
int guest_write(const struct region_list *list, gpa_t gpa, const void *buf,
		u64 size);
int guest_set(const struct region_list *list, gpa_t gpa, u8 value, u64 size);
/* RAM in one piece of host memory, through the direct map; or NULL. */
void *guest_ptr(const struct region_list *list, gpa_t gpa, u64 size);

/* Bits as in the page-fault error code, SDM 4.7. */
enum guest_access {
	GUEST_READ = 0,
	GUEST_WRITE = BIT(1),
	GUEST_FETCH = BIT(4),
	/* To a descriptor table or TSS: supervisor whatever the CPL (4.6). */
	GUEST_IMPLICIT = BIT(16),
};

/* What of the vCPU's state decides over a translation. */
struct guest_paging {
	u64 cr0, cr3, cr4, efer, rflags;
	u64 pdpte[4];	    /* PAE paging: the VMCS's guest PDPTEs, SDM 4.4.1 */
	unsigned cpl;	    /* 0-3 */
	unsigned phys_bits; /* MAXPHYADDR, 32-52 */
	bool gib_pages;	    /* CPUID.80000001H:EDX[26] */
	const struct region_list *list;
};

#define GUEST_LEVELS 5

struct guest_translation {
	gva_t gva;	/* as walked; where a fault is: for CR2 */
	gpa_t gpa;	/* of gva */
	u64 page_size;	/* bytes, of the guest's page */
	u32 error_code; /* of the #PF, with -EFAULT */
	/* The entries that were used, from the top, and where they lie. */
	unsigned depth;
	struct guest_walked {
		gpa_t gpa;
		const volatile void *at; /* 8 bytes, or 4 without PAE */
		u64 value;
	} walked[GUEST_LEVELS];
};

/*
 * Translates gva, checks the access and sets accessed and dirty flags; the
 * page itself need not be memory. access: one of READ, WRITE, FETCH, perhaps
 * with IMPLICIT. Protection keys and shadow stacks are left out. Errors:
 * -EFAULT: the guest gets #PF, see out; -ERANGE: gva is not canonical, #GP
 * or #SS; -EIO: a paging structure lies outside guest RAM.
 */
int guest_walk(const struct guest_paging *pg, gva_t gva, unsigned access,
	       struct guest_translation *out);

/*
 * gva's translation, and where it lies in host memory: *host, good for *run
 * bytes of at most size, none behind gva's page. Errors as above, with -EIO
 * also for what is no guest RAM (nor ROM, to read).
 */
int guest_linear_run(const struct guest_paging *pg, gva_t gva, u64 size,
		     unsigned access, u8 **host, u64 *run,
		     struct guest_translation *out);

/*
 * size bytes at gva, over as many pages as it takes. access: READ or FETCH,
 * perhaps with IMPLICIT; or WRITE, which the second implies: the first then
 * reads what the guest could write. Errors as above, with -EIO also for a
 * page outside guest RAM; then nothing was copied, but accessed and dirty
 * flags may be set.
 */
int guest_read_linear(const struct guest_paging *pg, gva_t gva, void *buf,
		      u64 size, unsigned access, struct guest_translation *out);
int guest_write_linear(const struct guest_paging *pg, gva_t gva,
		       const void *buf, u64 size, unsigned access,
		       struct guest_translation *out);

#endif
