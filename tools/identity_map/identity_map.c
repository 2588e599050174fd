/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * A module for the guest's Linux. Where Monocle was started with igd=closed,
 * the display's memory waits for a driver that asks for it by hypercall
 * (docs/hypercalls.md):
 *
 *	insmod identity_map.ko runs=0xa0000:32,0xc0000:1
 *
 * A run is a guest-physical address and a number of 4 KiB pages. All of them
 * are opened or, where one page is none of the display's, none is, and the
 * module is not loaded. What is open stays so until the guest is reset.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <asm/processor.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>

#define LEAF 0x40000000
#define ABI 2
#define IDENTITY_MAP 4
#define RUNS 32

struct run {
	u64 gpa, pages;
};

static char *runs[RUNS];
static unsigned int count;
module_param_array(runs, charp, &count, 0444);
MODULE_PARM_DESC(runs, "what to open: ADDRESS:PAGES,... (at most 32)");

static struct run list[RUNS];

/* The number of Monocle's first call. */
static int find(u64 *base)
{
	u32 eax, ebx, ecx, edx, name[4] = {0};

	cpuid(LEAF, &eax, &name[0], &name[1], &name[2]);
	if (strcmp((const char *)name, "MonocleVMM")) {
		pr_err("there is no Monocle below this kernel\n");
		return -ENODEV;
	}
	cpuid(LEAF + 1, &eax, &ebx, &ecx, &edx);
	if (eax < ABI) {
		pr_err("this Monocle's hypercalls are version %u; version %u "
		       "has what is needed\n",
		       eax, ABI);
		return -ENODEV;
	}
	*base = ebx;
	return 0;
}

static int parse(void)
{
	unsigned int i;
	char more;

	for (i = 0; i < count; i++) {
		if (sscanf(runs[i], "%lli:%lli%c", &list[i].gpa, &list[i].pages,
			   &more) == 2)
			continue;
		pr_err("'%s': write ADDRESS:PAGES, as 0xa0000:32\n", runs[i]);
		return -EINVAL;
	}
	if (count)
		return 0;
	pr_err("say what to open: runs=ADDRESS:PAGES,...\n");
	return -EINVAL;
}

static const char *reason(s64 error)
{
	switch (error) {
	case -EINVAL:
		return "a page is none of the display's that igd=closed "
		       "closes, or an address is not page-aligned";
	case -ENOSPC:
		return "the display's memory would be in too many pieces";
	case -ENOMEM:
		return "Monocle has too little memory";
	default:
		return "Monocle refuses";
	}
}

static int __init identity_map_init(void)
{
	u64 base;
	s64 result;
	int err = find(&base);

	if (!err)
		err = parse();
	if (err)
		return err;
	asm volatile("vmcall"
		     : "=a"(result)
		     : "a"(base + IDENTITY_MAP), "b"(list), "c"((u64)count),
		       "d"(0ul)
		     : "memory");
	if (result < 0)
		pr_err("nothing is opened: %s (error %lld)\n", reason(result),
		       -result);
	else
		pr_info("%u runs are open\n", count);
	return (int)result;
}

/* A module without it could not be removed. */
static void __exit identity_map_exit(void)
{
}

module_init(identity_map_init);
module_exit(identity_map_exit);
MODULE_DESCRIPTION("Opens memory of the display that Monocle has closed");
MODULE_LICENSE("Dual MIT/GPL");
