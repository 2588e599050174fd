/* SPDX-License-Identifier: MIT */
/*
 * The tiny guest on Linux's KVM, by its own interface (Linux:
 * Documentation/virt/kvm/api.rst):
 *
 *	kvm CPUS GUEST.ELF WORD...
 *
 * No more of a machine than the guest asks for: 64 MiB, KVM's own interrupt
 * controllers and PIT, a MADT, COM1 to standard output, and port 0xF4, which
 * ends it all.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY (64u << 20)
#define TSS_PAGES 0xfffbd000ul /* where no guest has anything: KVM's own */
#define INFO 0x9000u	       /* Multiboot 0.6.96, 3.3 */
#define MMAP (INFO + 0x100)
#define WORDS (INFO + 0x200)
#define RSDP 0xE0000u /* ACPI 6.4, 5.2.5 */
#define RSDT (RSDP + 0x40)
#define MADT (RSDP + 0x80)
#define COM1 0x3F8
#define EXIT_PORT 0xF4
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct vcpu {
	int fd;
	struct kvm_run *run;
};

static uint8_t *memory;

static int call(int fd, unsigned long request, const char *name, void *arg)
{
	int done = ioctl(fd, request, arg);

	if (done < 0)
		err(100, "%s", name);
	return done;
}

#define CALL(fd, request, arg) call(fd, request, #request, arg)

static void put(uint32_t at, const void *what, size_t size)
{
	memcpy(memory + at, what, size);
}

static void put32(uint32_t at, uint32_t value)
{
	put(at, &value, sizeof(value));
}

/* Returns where it begins. */
static uint32_t load(const char *path)
{
	static uint8_t file[1 << 20];
	const Elf64_Ehdr *head = (const void *)file;
	int fd = open(path, O_RDONLY);
	ssize_t size = fd < 0 ? -1 : read(fd, file, sizeof(file));

	if (size < (ssize_t)sizeof(*head) || size == sizeof(file))
		err(100, "%s", path);
	for (unsigned i = 0; i < head->e_phnum; i++) {
		const Elf64_Phdr *part = (const void *)(file + head->e_phoff +
							i * sizeof(*part));

		if (part->p_type != PT_LOAD)
			continue;
		if (part->p_paddr + part->p_memsz > MEMORY ||
		    part->p_offset + part->p_filesz > (size_t)size)
			errx(100, "%s: too large", path);
		put((uint32_t)part->p_paddr, file + part->p_offset,
		    part->p_filesz);
	}
	close(fd);
	return (uint32_t)head->e_entry;
}

static void tell_guest(char **words, unsigned cpus)
{
	uint32_t at = WORDS;

	const struct {
		uint32_t size;
		uint64_t base, length;
		uint32_t kind;
	} __attribute__((packed)) rows[] = {
		{20, 0, 0x9F000, 1},
		{20, 1 << 20, MEMORY - (1 << 20), 1},
	};

	put32(INFO, 1 << 2 | 1 << 6);
	put32(INFO + 16, WORDS);
	put32(INFO + 44, sizeof(rows));
	put32(INFO + 48, MMAP);
	put(MMAP, rows, sizeof(rows));
	for (; *words && at + strlen(*words) < RSDP; words++)
		at += (uint32_t)sprintf((char *)memory + at, "%s ", *words);
	put(RSDP, "RSD PTR ", 8);
	put32(RSDP + 16, RSDT);
	put(RSDT, "RSDT", 4);
	put32(RSDT + 4, 36 + 4);
	put32(RSDT + 36, MADT);
	put(MADT, "APIC", 4);
	put32(MADT + 4, 44 + 8 * cpus);
	for (unsigned id = 0; id < cpus; id++) {
		put32(MADT + 44 + 8 * id, id << 24 | id << 16 | 8 << 8);
		put32(MADT + 48 + 8 * id, 1);
	}
}

static void set_cpuid(int kvm, int fd, uint32_t id)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[128];
	} all;

	all.head.nent = COUNT(all.entries);
	CALL(kvm, KVM_GET_SUPPORTED_CPUID, &all);
	for (unsigned i = 0; i < all.head.nent; i++) {
		struct kvm_cpuid_entry2 *e = &all.entries[i];

		if (e->function == 1) {
			e->ebx = (e->ebx & 0xffffff) | id << 24;
			e->ecx |= 1u << 24; /* the TSC deadline */
		} else if (e->function == 0xB) {
			e->edx = id;
		}
	}
	CALL(fd, KVM_SET_CPUID2, &all);
}

/* Multiboot 0.6.96, 3.2. */
static void set_registers(int fd, uint32_t entry)
{
	struct kvm_segment flat = {.limit = ~0u,
				   .selector = 8,
				   .type = 11,
				   .present = 1,
				   .db = 1,
				   .s = 1,
				   .g = 1};
	struct kvm_regs r = {
		.rax = 0x2BADB002, .rbx = INFO, .rip = entry, .rflags = 2};
	struct kvm_sregs s;

	CALL(fd, KVM_GET_SREGS, &s);
	s.cr0 = 0x11;
	s.cs = flat;
	flat.selector = 16;
	flat.type = 3;
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	CALL(fd, KVM_SET_SREGS, &s);
	CALL(fd, KVM_SET_REGS, &r);
}

static void access_port(const struct kvm_run *run)
{
	uint8_t *at = (uint8_t *)run + run->io.data_offset;
	static uint8_t line_control;

	if (run->io.direction == KVM_EXIT_IO_IN) {
		memset(at, run->io.port == COM1 + 5 ? 0x60 : 0xff,
		       run->io.size * (size_t)run->io.count);
		return;
	}
	if (run->io.port == EXIT_PORT)
		exit(*at);
	if (run->io.port == COM1 + 3)
		line_control = *at;
	else if (run->io.port == COM1 && !(line_control & 0x80))
		putchar(*at);
}

static void *run_vcpu(void *arg)
{
	const struct vcpu *v = arg;

	for (;;) {
		/* EAGAIN: it has had its SIPI. */
		if (ioctl(v->fd, KVM_RUN, 0) < 0 && errno != EINTR &&
		    errno != EAGAIN)
			err(100, "KVM_RUN");
		if (v->run->exit_reason == KVM_EXIT_IO)
			access_port(v->run);
		else if (v->run->exit_reason == KVM_EXIT_MMIO)
			memset(v->run->mmio.data, 0xff, 8);
		else if (v->run->exit_reason != KVM_EXIT_INTR &&
			 v->run->exit_reason != KVM_EXIT_UNKNOWN)
			errx(100, "exit reason %u", v->run->exit_reason);
	}
	return NULL;
}

static struct vcpu create_vcpu(int kvm, int vm, unsigned id)
{
	int fd = CALL(vm, KVM_CREATE_VCPU, (void *)(uintptr_t)id);
	size_t size = (size_t)CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	void *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (run == MAP_FAILED)
		err(100, "vCPU");
	set_cpuid(kvm, fd, id);
	return (struct vcpu){fd, run};
}

static int create_vm(int kvm)
{
	struct kvm_userspace_memory_region all = {.memory_size = MEMORY};
	struct kvm_pit_config pit = {0};
	int vm = CALL(kvm, KVM_CREATE_VM, NULL);

	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED)
		err(100, "memory");
	all.userspace_addr = (uintptr_t)memory;
	CALL(vm, KVM_SET_TSS_ADDR, (void *)TSS_PAGES);
	CALL(vm, KVM_SET_USER_MEMORY_REGION, &all);
	CALL(vm, KVM_CREATE_IRQCHIP, NULL);
	CALL(vm, KVM_CREATE_PIT2, &pit);
	return vm;
}

int main(int argc, char **argv)
{
	static char buffer[1 << 16];
	static struct vcpu vcpus[8];
	unsigned cpus = argc > 3 ? (unsigned)atoi(argv[1]) : 0;
	int kvm = open("/dev/kvm", O_RDWR), vm;

	if (!cpus || cpus > COUNT(vcpus))
		errx(100, "CPUS GUEST.ELF WORD...");
	if (kvm < 0)
		err(100, "/dev/kvm");
	/* All at the end: the line would be busy while the guest measures. */
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	vm = create_vm(kvm);
	for (unsigned id = 0; id < cpus; id++)
		vcpus[id] = create_vcpu(kvm, vm, id);
	set_registers(vcpus[0].fd, load(argv[2]));
	tell_guest(argv + 3, cpus);
	for (unsigned id = 1; id < cpus; id++) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, run_vcpu, &vcpus[id]))
			errx(100, "no thread");
	}
	run_vcpu(&vcpus[0]);
}
