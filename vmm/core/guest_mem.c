/* SPDX-License-Identifier: MIT */
#include "vmm/core/guest_mem.h"

#include "arch/x86/cpu.h"
#include "arch/x86/errno.h"
#include "kernel/phys.h"
#include "kernel/string.h"

/* The host address of gpa, good for *run bytes of at most size; or NULL. */
static u8 *host_run(const struct region_list *list, gpa_t gpa, u64 size,
		    u8 rights, u64 *run)
{
	const struct region *r = region_find(list, gpa);
	u64 offset;

	if (!r || (r->cpu & rights) != rights)
		return NULL;
	if (r->kind != REGION_RAM &&
	    !(r->kind == REGION_ROM && rights == REGION_R))
		return NULL;
	offset = gpa - r->gpa;
	*run = MIN(size, r->size - offset);
	return (u8 *)phys_to_virt(r->hpa) + offset;
}

static bool reachable(const struct region_list *list, gpa_t gpa, u64 size,
		      u8 rights)
{
	u64 run;

	for (; size; gpa += run, size -= run)
		if (!host_run(list, gpa, size, rights, &run))
			return false;
	return true;
}

/* Guest memory to to, or from from or value to guest memory. */
struct transfer {
	u8 *to;
	const u8 *from;
	u8 value;
};

static int transfer(const struct region_list *list, gpa_t gpa, u64 size,
		    struct transfer t)
{
	u8 rights = t.to ? REGION_R : REGION_W;
	u64 done, run;

	if (!reachable(list, gpa, size, rights))
		return -EFAULT;
	for (done = 0; done < size; done += run) {
		u8 *host =
			host_run(list, gpa + done, size - done, rights, &run);

		if (!host)
			return -EFAULT;
		if (t.to)
			memcpy(t.to + done, host, run);
		else if (t.from)
			memcpy(host, t.from + done, run);
		else
			memset(host, t.value, run);
	}
	return 0;
}

int guest_read(const struct region_list *list, gpa_t gpa, void *buf, u64 size)
{
	return transfer(list, gpa, size, (struct transfer){.to = buf});
}

int guest_write(const struct region_list *list, gpa_t gpa, const void *buf,
		u64 size)
{
	return transfer(list, gpa, size, (struct transfer){.from = buf});
}

int guest_set(const struct region_list *list, gpa_t gpa, u8 value, u64 size)
{
	return transfer(list, gpa, size, (struct transfer){.value = value});
}

void *guest_ptr(const struct region_list *list, gpa_t gpa, u64 size)
{
	u64 run, done;
	u8 *start = host_run(list, gpa, size, REGION_RW, &run);

	if (!start)
		return NULL;
	for (done = run; done < size; done += run)
		if (host_run(list, gpa + done, size - done, REGION_RW, &run) !=
		    start + done)
			return NULL;
	return start;
}

/* SDM tables 4-5 and 4-14 to 4-20: the bits that all formats share. */
enum entry_bits {
	ENTRY_P = BIT(0),
	ENTRY_RW = BIT(1),
	ENTRY_US = BIT(2),
	ENTRY_A = BIT(5),
	ENTRY_D = BIT(6),
	ENTRY_PS = BIT(7),
};

#define ENTRY_XD BIT(63)

enum fault_bits { FAULT_P = 1, FAULT_US = 4, FAULT_RSVD = 8 };

struct walk {
	const struct guest_paging *pg;
	gva_t gva;
	unsigned access;
	bool long_mode, wide; /* wide: entries of 8 bytes */
	/* Together over all levels (SDM 4.6). */
	bool user, writable, xd;
	u64 entry; /* the last one that was read */
};

/* Bits high to low, inclusive; none where low is above high. */
static u64 bits(unsigned high, unsigned low)
{
	return low > high ? 0 : (~0ull >> (63 - high)) & (~0ull << low);
}

static bool user_access(const struct walk *w)
{
	return w->pg->cpl == 3 && !(w->access & GUEST_IMPLICIT);
}

/* The page-fault error code, SDM 4.7. */
static int fault(const struct walk *w, struct guest_translation *out, u32 code)
{
	const struct guest_paging *pg = w->pg;
	bool tells_fetch = pg->cr4 & CR4_SMEP ||
			   (pg->cr4 & CR4_PAE && pg->efer & EFER_NXE);

	if (user_access(w))
		code |= FAULT_US;
	code |= w->access & GUEST_WRITE;
	if (tells_fetch)
		code |= w->access & GUEST_FETCH;
	out->error_code = code;
	return -EFAULT;
}

/* The lowest bit of the address that a level's index translates. */
static unsigned level_shift(const struct walk *w, unsigned level)
{
	return PAGE_SHIFT + (w->wide ? 9 : 10) * (level - 1);
}

static bool is_large(const struct walk *w, unsigned level)
{
	if (!(w->entry & ENTRY_PS))
		return false;
	if (level == 2)
		return w->wide || w->pg->cr4 & CR4_PSE;
	return level == 3 && w->long_mode && w->pg->gib_pages;
}

/* SDM 4.3: PSE-36 puts address bits 39:32 at 20:13, as many as there are. */
static u64 reserved_narrow(const struct walk *w, unsigned level)
{
	unsigned width = MIN(w->pg->phys_bits, 40u);

	return is_large(w, level) ? bits(21, width - 19) : 0;
}

/* SDM 4.4.2 and 4.5. */
static u64 reserved(const struct walk *w, unsigned level)
{
	u64 mask;

	if (!w->wide)
		return reserved_narrow(w, level);
	mask = bits(w->long_mode ? 51 : 62, w->pg->phys_bits);
	if (!(w->pg->efer & EFER_NXE))
		mask |= ENTRY_XD;
	if (is_large(w, level))
		mask |= bits(level_shift(w, level) - 1, 13);
	else if (level > 2)
		mask |= ENTRY_PS;
	return mask;
}

/* What the entry's address field holds. */
static gpa_t entry_address(const struct walk *w, unsigned level)
{
	if (!is_large(w, level))
		return w->entry & bits(51, PAGE_SHIFT);
	if (w->wide)
		return w->entry & bits(51, level_shift(w, level));
	return (w->entry & bits(31, 22)) | (w->entry & bits(20, 13)) << 19;
}

/* SDM volume 1, 3.3.7.1: the bits above the width are a sign. */
static bool canonical(gva_t gva, unsigned width)
{
	u64 sign = gva >> (width - 1);

	return sign == 0 || sign == ~0ull >> (width - 1);
}

/* The top level and its table, or an error. */
static int walk_start(struct walk *w, unsigned *level, gpa_t *table,
		      struct guest_translation *out)
{
	const struct guest_paging *pg = w->pg;
	bool la57 = pg->cr4 & CR4_LA57;
	u64 pdpte;

	if (w->long_mode) {
		*level = la57 ? 5 : 4;
		*table = pg->cr3 & bits(51, PAGE_SHIFT);
		return canonical(w->gva, la57 ? 57 : 48) ? 0 : -ERANGE;
	}
	*level = 2;
	*table = pg->cr3 & bits(31, PAGE_SHIFT);
	if (!w->wide)
		return 0;
	/* PAE: the third level is in registers. */
	pdpte = pg->pdpte[w->gva >> 30];
	*table = pdpte & bits(51, PAGE_SHIFT);
	return pdpte & ENTRY_P ? 0 : fault(w, out, 0);
}

/* One access: another vCPU may write it meanwhile. */
static bool read_entry(const struct walk *w, unsigned level, gpa_t table,
		       struct guest_walked *e)
{
	unsigned size = w->wide ? 8 : 4;
	u64 index = w->gva >> level_shift(w, level) & (PAGE_SIZE / size - 1);
	u64 run;

	e->gpa = table + index * size;
	e->at = host_run(w->pg->list, e->gpa, size, REGION_R, &run);
	if (e->at)
		e->value = w->wide ? *(const volatile u64 *)e->at
				   : *(const volatile u32 *)e->at;
	return e->at;
}

/* From the top to the entry that maps the page; returns its level. */
static int walk_down(struct walk *w, struct guest_translation *out)
{
	unsigned level;
	gpa_t table;
	int err = walk_start(w, &level, &table, out);

	for (; !err; level--) {
		struct guest_walked *e = &out->walked[out->depth];

		if (!read_entry(w, level, table, e))
			return -EIO;
		w->entry = e->value;
		if (!(w->entry & ENTRY_P))
			return fault(w, out, 0);
		if (w->entry & reserved(w, level))
			return fault(w, out, FAULT_P | FAULT_RSVD);
		out->depth++;
		w->user &= !!(w->entry & ENTRY_US);
		w->writable &= !!(w->entry & ENTRY_RW);
		w->xd |= w->wide && w->entry & ENTRY_XD;
		if (level == 1 || is_large(w, level))
			return (int)level;
		table = entry_address(w, level);
	}
	return err;
}

/* SDM 4.6.1 */
static bool allowed(const struct walk *w)
{
	const struct guest_paging *pg = w->pg;
	bool write = w->access & GUEST_WRITE;

	if (w->access & GUEST_FETCH && w->xd)
		return false;
	if (user_access(w))
		return w->user && (!write || w->writable);
	if (w->user && w->access & GUEST_FETCH)
		return !(pg->cr4 & CR4_SMEP);
	if (w->user && pg->cr4 & CR4_SMAP &&
	    (w->access & GUEST_IMPLICIT || !(pg->rflags & RFLAGS_AC)))
		return false;
	return !write || w->writable || !(pg->cr0 & CR0_WP);
}

/* SDM 4.8. Other vCPUs change the entries' other bits meanwhile. */
static int set_flags(const struct walk *w, struct guest_translation *out)
{
	for (unsigned i = 0; i < out->depth; i++) {
		struct guest_walked *e = &out->walked[i];
		u8 want = ENTRY_A, *p;

		if (i + 1 == out->depth && w->access & GUEST_WRITE)
			want |= ENTRY_D;
		if ((e->value & want) == want)
			continue;
		p = guest_ptr(w->pg->list, e->gpa, sizeof(*p));
		if (!p)
			return -EIO;
		__atomic_fetch_or(p, want, __ATOMIC_SEQ_CST);
		e->value |= want;
	}
	return 0;
}

int guest_walk(const struct guest_paging *pg, gva_t gva, unsigned access,
	       struct guest_translation *out)
{
	struct walk w = {
		.pg = pg,
		.access = access,
		.long_mode = pg->efer & EFER_LMA,
		.wide = pg->cr4 & CR4_PAE || pg->efer & EFER_LMA,
		.user = true,
		.writable = true,
	};
	int level;

	w.gva = w.long_mode ? gva : (u32)gva;
	out->gva = out->gpa = w.gva;
	out->page_size = PAGE_SIZE;
	out->error_code = out->depth = 0;
	if (!(pg->cr0 & CR0_PG))
		return 0;
	level = walk_down(&w, out);
	if (level < 0)
		return level;
	if (!allowed(&w))
		return fault(&w, out, FAULT_P);
	out->page_size = BIT(level_shift(&w, (unsigned)level));
	out->gpa = entry_address(&w, (unsigned)level) |
		   (w.gva & (out->page_size - 1));
	return set_flags(&w, out);
}

int guest_linear_run(const struct guest_paging *pg, gva_t gva, u64 size,
		     unsigned access, u8 **host, u64 *run,
		     struct guest_translation *out)
{
	int err = guest_walk(pg, gva, access, out);

	if (err)
		return err;
	*host = host_run(pg->list, out->gpa,
			 MIN(size, PAGE_SIZE - (gva & PAGE_MASK)),
			 access & GUEST_WRITE ? REGION_W : REGION_R, run);
	return *host ? 0 : -EIO;
}

struct linear {
	const struct guest_paging *pg;
	gva_t gva;
	u64 size;
	unsigned access;
	const u8 *from; /* one of the two, by access */
	u8 *to;
	struct guest_translation *out;
};

/* Copies, or only finds out whether that is possible. */
static int linear_pass(const struct linear *l, bool copy)
{
	u64 done, run;

	for (done = 0; done < l->size; done += run) {
		u8 *host;
		int err = guest_linear_run(l->pg, l->gva + done, l->size - done,
					   l->access, &host, &run, l->out);

		if (err)
			return err;
		if (copy && l->to)
			memcpy(l->to + done, host, run);
		else if (copy)
			memcpy(host, l->from + done, run);
	}
	return 0;
}

/* Nothing may be copied before all of the pages are known to be there. */
static int linear(const struct linear *l)
{
	int err = 0;

	if (l->size > PAGE_SIZE - (l->gva & PAGE_MASK))
		err = linear_pass(l, false);
	return err ? err : linear_pass(l, true);
}

int guest_read_linear(const struct guest_paging *pg, gva_t gva, void *buf,
		      u64 size, unsigned access, struct guest_translation *out)
{
	return linear(&(struct linear){pg, gva, size, access, NULL, buf, out});
}

int guest_write_linear(const struct guest_paging *pg, gva_t gva,
		       const void *buf, u64 size, unsigned access,
		       struct guest_translation *out)
{
	return linear(&(struct linear){pg, gva, size, access | GUEST_WRITE, buf,
				       NULL, out});
}
