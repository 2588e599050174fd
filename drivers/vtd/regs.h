/* SPDX-License-Identifier: MIT */
/*
 * Registers of a remapping unit: VT-d specification chapter 11 (chapter 10
 * in revisions before 3.2). Two enums, so that the accessors of unit.h know
 * the width and -Wenum-conversion refuses a wrong one.
 */
#ifndef DRIVERS_VTD_REGS_H
#define DRIVERS_VTD_REGS_H

#include "arch/x86/types.h"

enum vtd_reg32 {
	VTD_VER = 0x00,
	VTD_GCMD = 0x18,
	VTD_GSTS = 0x1c,
	VTD_FSTS = 0x34,
	VTD_FECTL = 0x38,
	VTD_FEDATA = 0x3c,
	VTD_FEADDR = 0x40,
	VTD_FEUADDR = 0x44,
	VTD_PMEN = 0x64,
	VTD_IQH = 0x80,
};

enum vtd_reg64 {
	VTD_CAP = 0x08,
	VTD_ECAP = 0x10,
	VTD_RTADDR = 0x20,
	VTD_CCMD = 0x28,
	VTD_IQT = 0x88,
	VTD_IQA = 0x90,
	VTD_IRTA = 0xb8,
};

/* GCMD writes a bit, GSTS shows it (11.4.4). */
#define VTD_GCMD_TE (1u << 31)	  /* translation enable */
#define VTD_GCMD_SRTP (1u << 30)  /* set root table pointer; one-shot */
#define VTD_GCMD_SFL (1u << 29)	  /* set fault log; one-shot */
#define VTD_GCMD_WBF (1u << 27)	  /* write buffer flush; one-shot */
#define VTD_GCMD_QIE (1u << 26)	  /* queued invalidation enable */
#define VTD_GCMD_IRE (1u << 25)	  /* interrupt remapping enable */
#define VTD_GCMD_SIRTP (1u << 24) /* set interrupt table; one-shot */
#define VTD_GCMD_CFI (1u << 23)	  /* pass compatibility-format interrupts */
#define VTD_GCMD_ONE_SHOT \
	(VTD_GCMD_SRTP | VTD_GCMD_SFL | VTD_GCMD_WBF | VTD_GCMD_SIRTP)

#define VTD_FIELD(value, low, bits) \
	((unsigned)((value) >> (low)) & ((1u << (bits)) - 1))

/* Capability register (11.4.2) */
#define VTD_CAP_ND(c) VTD_FIELD(c, 0, 3) /* 2^(4 + 2n) domains */
#define VTD_CAP_RWBF BIT(4)
#define VTD_CAP_PMR (BIT(5) | BIT(6)) /* low, high protected memory */
#define VTD_CAP_CM BIT(7)
#define VTD_CAP_SAGAW(c) VTD_FIELD(c, 8, 5)
#define VTD_CAP_MGAW(c) (VTD_FIELD(c, 16, 6) + 1)  /* bits */
#define VTD_CAP_FRO(c) (VTD_FIELD(c, 24, 10) * 16) /* bytes */
#define VTD_CAP_SLLPS_2M BIT(34)
#define VTD_CAP_SLLPS_1G BIT(35)
#define VTD_CAP_PSI BIT(39)
#define VTD_CAP_NFR(c) (VTD_FIELD(c, 40, 8) + 1)
#define VTD_CAP_MAMV(c) VTD_FIELD(c, 48, 6)
#define VTD_CAP_DRAIN(c) VTD_FIELD(c, 54, 2) /* drains writes, reads */

/* Extended capability register (11.4.3) */
#define VTD_ECAP_C BIT(0)
#define VTD_ECAP_QI BIT(1)
#define VTD_ECAP_IR BIT(3)
#define VTD_ECAP_EIM BIT(4)
#define VTD_ECAP_IRO(e) (VTD_FIELD(e, 8, 10) * 16) /* bytes */

/* Root table address (11.4.5): bits 11:10 are the translation table mode. */
#define VTD_RTADDR_TTM (3ull << 10)
#define VTD_RTADDR_ABORT (3ull << 10) /* all DMA is blocked */

/* Context command (11.4.6.1) and IOTLB invalidate (11.4.6.2) */
#define VTD_CCMD_GLOBAL (1ull << 61)
#define VTD_CCMD_CAIG (3ull << 59) /* what was done; 0: nothing */
#define VTD_IOTLB_IIRG_SHIFT 60
#define VTD_IOTLB_IAIG (3ull << 57)
#define VTD_IOTLB_DRAIN_SHIFT 48 /* as the capability */
#define VTD_IOTLB_DID_SHIFT 32
#define VTD_START BIT(63) /* of both: clear when it is done */

/* Fault status (11.4.9): all but PPF and FRI are cleared by writing 1. */
#define VTD_FSTS_PFO (1u << 0)	 /* a record was lost */
#define VTD_FSTS_PPF (1u << 1)	 /* a record waits */
#define VTD_FSTS_QUEUE (7u << 4) /* IQE, ICE, ITE: the queue has an error */
#define VTD_FSTS_FRI(v) VTD_FIELD(v, 8, 8)
#define VTD_FECTL_IM (1u << 31)

/* Fault recording register, high quadword (11.4.14) */
#define VTD_FRCD_F BIT(63)
#define VTD_FRCD_T1 BIT(62) /* set: read; clear: write */
#define VTD_FRCD_REASON(hi) VTD_FIELD(hi, 32, 8)

/* Invalidation queue address (11.4.22.3) */
#define VTD_IQA_BASE(v) ((v)&0x000ffffffffff000ull)
#define VTD_IQA_SIZE(v) (4096u << ((v)&7)) /* bytes */
#define VTD_IQA_DW BIT(11)		   /* descriptors of 32 bytes */

#define VTD_PMEN_EPM (1u << 31)
#define VTD_PMEN_PRS (1u << 0)
#define VTD_IRTA_EIME BIT(11)

#endif
