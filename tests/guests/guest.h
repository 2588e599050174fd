/* SPDX-License-Identifier: MIT */
/*
 * The tiny guest: 64-bit, ring 0, the first 4 GiB mapped one to one, one CPU.
 * The first word of its Multiboot command line picks what it does (main.c);
 * it prints on COM1 and ends with a status at port 0xF4.
 */
#ifndef TESTS_GUESTS_GUEST_H
#define TESTS_GUESTS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (1ull << (n))
#define MIB 0x100000ull

/* Selectors of start.asm's GDT. */
enum selector {
	SEL_CODE64 = 0x08,
	SEL_DATA = 0x10,
	SEL_USER_DATA = 0x33,
	SEL_USER_CODE64 = 0x3b
};

enum vector {
	VEC_DE = 0,
	VEC_DB = 1,
	VEC_NMI = 2,
	VEC_UD = 6,
	VEC_DF = 8,
	VEC_GP = 13,
	VEC_PF = 14,
	VEC_AC = 17,
	VEC_USER_EXIT = 0x80
};

static inline u8 inb(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u16 inw(u16 port)
{
	u16 value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline u32 inl(u16 port)
{
	u32 value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline void outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(u16 port, u16 value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(u16 port, u32 value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline u64 rdmsr(u32 msr)
{
	u32 low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (u64)high << 32 | low;
}

static inline void wrmsr(u32 msr, u64 value)
{
	__asm__ volatile("wrmsr"
			 :
			 : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32))
			 : "memory");
}

static inline u64 rdtsc(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (u64)high << 32 | low;
}

struct cpuid {
	u32 eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(u32 leaf, u32 subleaf)
{
	struct cpuid r;

	__asm__ volatile("cpuid"
			 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
			 : "a"(leaf), "c"(subleaf));
	return r;
}

static inline bool has_xsave(void)
{
	return cpuid(1, 0).ecx >> 26 & 1;
}

#define READ_CR(n)                                                             \
	static inline u64 read_cr##n(void)                                     \
	{                                                                      \
		u64 value;                                                     \
		__asm__ volatile("mov %%cr" #n ", %0"                          \
				 : "=r"(value)                                 \
				 :                                             \
				 : "memory");                                  \
		return value;                                                  \
	}                                                                      \
	static inline void write_cr##n(u64 value)                              \
	{                                                                      \
		__asm__ volatile("mov %0, %%cr" #n : : "r"(value) : "memory"); \
	}
READ_CR(0)
READ_CR(2)
READ_CR(3)
READ_CR(4)
READ_CR(8)

static inline void cli(void)
{
	__asm__ volatile("cli" : : : "memory");
}

static inline void sti(void)
{
	__asm__ volatile("sti" : : : "memory");
}

/* STI opens interrupts only after the instruction behind it. */
static inline void open_interrupts(void)
{
	__asm__ volatile("sti; nop; nop; cli" : : : "memory");
}

static inline void halt_open(void)
{
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}

static inline void relax(void)
{
	__asm__ volatile("pause" : : : "memory");
}

static inline u32 read32(u64 address)
{
	return *(volatile u32 *)address;
}

static inline void write32(u64 address, u32 value)
{
	*(volatile u32 *)address = value;
}

/* -- runtime.c */

void console_init(void);
/* %s %u %x (unsigned), %lu %lx (u64), %c; no widths. */
void print(const char *format, ...);
__attribute__((noreturn)) void finish(u8 status);
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int strcmp(const char *a, const char *b);
bool starts(const char *text, const char *with);
/* The word "name=N" of the command line, or the default. */
u64 option(const char *name, u64 otherwise);

/* For who looks at the machine: until the keyboard's controller has a byte,
 * at most the ticks of the word hold=, none without it. */
void hold(void);

struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx,
		rax, vector, error, rip, cs, rflags, rsp, ss;
};

/* The exception that ended the last attempt. */
struct fault {
	int vector; /* -1: none */
	u64 error, address, rip;
	struct frame frame;
};

extern struct fault fault;
extern bool is_monocle; /* or the bare machine */

void traps_init(void);
void idt_load(void);
/* Runs f(arg); returns the vector of the exception that ended it, or -1. */
int attempt(void (*f)(void *), void *arg);
/* The same in ring 3; interrupts are not let in. flags: of RFLAGS. */
int attempt_user(void (*f)(void *), void *arg, u64 flags);
/* What is not of the kernel alone: the image. */
void user_open_image(void);
void user_close_image(void);

typedef void handler(struct frame *frame);

/* Of vectors 32 to 255, and of #DB and NMI. NULL: counted and EOIed only. */
extern handler *handlers[256];
extern volatile u32 interrupts[256];

/* Waits with interrupts open; false after `ticks` of the TSC. */
bool wait_for(unsigned vector, u32 count, u64 ticks);

/* Says where what came differs from what hardware gives. */
void check_at(const char *file, int line, const char *what, u64 got, u64 want);
#define check(got, want) check_at(__FILE__, __LINE__, #got, (u64)(got), want)
#define check_true(condition) \
	check_at(__FILE__, __LINE__, #condition, (condition) ? 1 : 0, 1)

struct test {
	const char *name;
	void (*run)(void);
	bool monocle; /* not on the bare machine: it answers otherwise */
};

/* How many checks have failed so far. */
extern unsigned failures;

/* Prints a line for each, or for this one; returns how many failed. */
extern const char *only_test;
unsigned run_tests(const struct test *tests, unsigned count);

/* -- Multiboot information */

struct mmap_row {
	u32 size;
	u64 base, length;
	u32 kind;
} __attribute__((packed));

/* RAM below 4 GiB ends here; nothing answers in [ram_end, hole_end). */
extern u64 ram_end;
/* The configuration space in memory, 0: none. */
extern u64 ecam;
/* A page below 1 MiB that is RAM, for 16-bit code. */
extern u64 low_page;
void memory_init(u64 info);

/* -- switch.c */

u8 task_switches(void);

/* -- rom.c */

u8 rom(void);

/* -- interrupt controllers: apic.c */

enum lapic {
	LAPIC_ID = 0x02,
	LAPIC_VERSION = 0x03,
	LAPIC_TPR = 0x08,
	LAPIC_PPR = 0x0A,
	LAPIC_EOI = 0x0B,
	LAPIC_LDR = 0x0D,
	LAPIC_DFR = 0x0E,
	LAPIC_SVR = 0x0F,
	LAPIC_ISR = 0x10,
	LAPIC_TMR = 0x18,
	LAPIC_IRR = 0x20,
	LAPIC_ESR = 0x28,
	LAPIC_ICR = 0x30,
	LAPIC_ICR_HIGH = 0x31,
	LAPIC_LVT_TIMER = 0x32,
	LAPIC_LVT_LINT0 = 0x35,
	LAPIC_LVT_LINT1 = 0x36,
	LAPIC_LVT_ERROR = 0x37,
	LAPIC_TIMER_INITIAL = 0x38,
	LAPIC_TIMER_CURRENT = 0x39,
	LAPIC_TIMER_DIVIDE = 0x3E,
	LAPIC_SELF_IPI = 0x3F,
};

#define MSR_APIC_BASE 0x1B
#define LAPIC_PAGE 0xFEE00000u
#define IOAPIC_PAGE 0xFEC00000u

extern bool x2apic;

u32 lapic_read(unsigned reg);
void lapic_write(unsigned reg, u32 value);
/* To this CPU by its ID: the interrupt command register's low half. */
void send_self(u32 icr);
void lapic_on(void);
void pics_off(void);
u32 ioapic_read(u8 reg);
void ioapic_write(u8 reg, u32 value);
void ioapic_route(unsigned pin, u32 low);

/* Channel 0, mode 2: every `count` of 1.193182 MHz. 0 stops it. */
void pit_periodic(u16 count);

/* -- all CPUs: cpus.c */

#define CPUS_MAX 8
#define IPI_TIME 400000000ull /* ticks; a slow rig's IPI has come by then */

enum icr {
	ICR_FIXED = 0,
	ICR_LOWEST = 1u << 8,
	ICR_NMI = 4u << 8,
	ICR_INIT = 5u << 8 | 1u << 14, /* level asserted */
	ICR_SIPI = 6u << 8 | 1u << 14,
	ICR_LOGICAL = 1u << 11,
	ICR_SELF = 1u << 18,
	ICR_ALL = 2u << 18,
	ICR_OTHERS = 3u << 18,
};

/* One of the machine's, its APIC ID is its place. */
struct cpu {
	struct cpu *self;
	u32 id;
	bool is_there, x2apic;
	volatile u32 lives; /* how often it has started */
	volatile u32 start_cs, start_cr0, start_edx;
	void (*volatile task)(struct cpu *); /* what it does; else beats */
	volatile u32 beats, stage;
	volatile u32 received[256]; /* each counted by itself alone */
	u32 due[256];		    /* by who sends that vector */
	u32 nmi_lock, lowest, wrong;
	u64 random;
	u64 gdt[10];
	u8 tss[104];
	_Alignas(16) u8 stacks[4096]; /* of #DF, of NMI */
};

extern struct cpu cpus[CPUS_MAX];
extern unsigned cpu_count;

static inline struct cpu *this_cpu(void)
{
	struct cpu *me;

	__asm__ volatile("mov %%gs:0, %0" : "=r"(me));
	return me;
}

/* Reads the MADT; this CPU's local APIC and tables. The others wait. */
void cpus_init(void);
u32 apic_get(unsigned reg);
void apic_set(unsigned reg, u32 value);
void send_ipi(u32 dest, u32 icr);
/* The vector of a SIPI: one of two pages. */
u32 start_vector(unsigned page);
u32 logical_id(u32 id, bool flat);
void set_logical(bool flat);
void enter_x2apic(void);
/* Has a CPU do this once. */
void begin(struct cpu *c, void (*task)(struct cpu *));
/* Until it has, until all have done what they began. */
void end(const struct cpu *c);
void end_all(void);
void rest(u64 ticks);
bool is_soon(const volatile u32 *at, u32 value);

/* -- PCI functions: pci.c */

enum config {
	CONFIG_ID = 0x00,
	CONFIG_COMMAND = 0x04,
	CONFIG_CLASS = 0x08,
	CONFIG_HEADER = 0x0C,
	CONFIG_BAR0 = 0x10,
	CONFIG_SUBSYSTEM = 0x2C,
	CONFIG_CAPABILITIES = 0x34,
	CONFIG_INTERRUPT = 0x3C,
};

enum command { PORTS = 1, MEMORY = 2, MASTER = 4, INTX_DISABLE = 0x400 };

#define CAP_MSI 5
#define MSI_ENABLE BIT(16) /* of the capability's first dword */

/* function: as CONFIG_ADDRESS has it. 32 bits at a multiple of four. */
u32 config_read(u32 function, unsigned offset);
void config_write(u32 function, unsigned offset, u32 value);
/* 0: none. */
unsigned find_capability(u32 function, u8 id);
/* Its MSI, whose capability is at this offset, to this CPU. */
void msi_on(u32 function, unsigned at, u8 vector);
/* Prints how many exits run(count) took. */
void count_exits(const char *what, void (*run)(u32), u32 count);

/* -- state.c */

void state(void);

/* Two bytes of CMOS memory, which a reset keeps. */
u16 cmos_get(void);
void cmos_set(u16 value);

/* -- what main.c picks from */

extern const struct test cpu_tests[], port_tests[], memory_tests[],
	apic_tests[], mode_tests[], user_tests[], vga_tests[];
extern const unsigned cpu_test_count, port_test_count, memory_test_count,
	apic_test_count, mode_test_count, user_test_count, vga_test_count;
void draw(const char *what);
void timers(void);
void hostile(const char *what);
void garbage(void);
void resets(void);
/* Starts Monocle as a boot loader does, with information of the test's. */
void chain(u64 info);
void bench(void);
/* How many tests failed. */
unsigned edu(void);
/* Its message is this handler's, which lowers it. False: there is none. */
bool edu_open(handler *h);
void edu_raise(void);
/* The same access, which raises nothing. */
void edu_touch(void);
bool edu_lower(void);
unsigned edu_own(void);
void edu_resets(void);
/* AHCI by its ports. How many tests failed. */
unsigned ahci(void);
void windows(void);
u8 windows_igd(void);
unsigned e1000(void);
/* Its line is this handler's, which lowers it. False: there is none. */
bool e1000_open(handler *h);
void e1000_raise(void);
/* False: nothing has raised it. */
bool e1000_lower(void);
unsigned e1000_pin(void);
void latency(void);
void latency_msi(void);
unsigned igd(void);
/* DMA where Intel graphics shares memory. How many tests failed. */
unsigned edu_igd(void);
unsigned edu_parked(void);
u8 storm(void);
void storm_resets(void);
void storm_echo(void);
void storm_line(void);

#endif
