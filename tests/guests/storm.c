/* SPDX-License-Identifier: MIT */
/*
 * Storms among all CPUs, by seed: what is sent is counted where it is sent and
 * where it comes, and CPUs are stopped and started in each state. A line for
 * each phase has its counts, which the seed alone decides.
 */
#include "guests/guest.h"

#define ROUNDS 60
#define SENT_AT 0x40 /* vectors, 16 of each sender's own */
#define V_LOWEST 8
#define V_ECHO 9
#define V_ANSWER 10
#define V_WAKE 0xF0
#define V_STRAY 0xF1 /* to who does not listen */
#define V_SPURIOUS 0xFF

enum kind {
	FIXED,
	LOGICAL,
	ALL,
	OTHERS,
	SELF,
	LOWEST,
	NMI,
	NMI_OTHERS,
	ECHO,
	CLOSED,
	MASKED,
	KINDS
};

static const char *const kinds[KINDS] = {
	"fixed", "logical",    "all",  "others", "self",  "lowest",
	"nmi",	 "nmi-others", "echo", "closed", "masked"};

/* Of the phase that is on. */
static struct {
	u32 members; /* a bit for each CPU that takes part */
	bool flat;   /* or clusters; x2APIC mode: flat */
	bool mixed;  /* modes: who is meant by all ones is not said */
	u32 ended, counts[KINDS];
} phase;

/* xorshift64* */
static u32 random(struct cpu *me, u32 below)
{
	me->random ^= me->random >> 12;
	me->random ^= me->random << 25;
	me->random ^= me->random >> 27;
	return (u32)((me->random * 0x2545F4914F6CDD1Dull >> 32) % below);
}

static u32 first_of(u32 mask)
{
	return (u32)__builtin_ctz(mask);
}

static u32 count_of(u32 mask)
{
	u32 n = 0;

	for (; mask; mask &= mask - 1)
		n++;
	return n;
}

static u32 everybody(void)
{
	u32 mask = 0;

	for (u32 id = 0; id < CPUS_MAX; id++)
		mask |= (u32)cpus[id].is_there << id;
	return mask;
}

static struct cpu *one_of(struct cpu *me, u32 mask)
{
	u32 n = random(me, count_of(mask));

	for (; n; n--)
		mask &= mask - 1;
	return &cpus[first_of(mask)];
}

/* Some of a mask; at least one. */
static u32 some_of(struct cpu *me, u32 mask)
{
	u32 some = mask & random(me, 1u << CPUS_MAX);

	return some ? some : mask & -mask;
}

static u8 vector_of(const struct cpu *sender, u32 n)
{
	return (u8)(SENT_AT + 16 * sender->id + n);
}

/* -- what arrives */

static void count(struct frame *f)
{
	this_cpu()->received[f->vector]++;
	apic_set(LAPIC_EOI, 0);
}

static void count_nmi(struct frame *f)
{
	(void)f;
	this_cpu()->received[VEC_NMI]++;
}

static void count_spurious(struct frame *f)
{
	(void)f;
	this_cpu()->received[V_SPURIOUS]++;
}

static void answer(struct frame *f)
{
	u32 sender = ((u32)f->vector - SENT_AT) / 16;

	count(f);
	send_ipi(sender, ICR_FIXED | vector_of(&cpus[sender], V_ANSWER));
}

/* -- what is sent */

static void lose(struct cpu *me)
{
	me->wrong++;
	print("CPU %u: what was sent does not come\n", me->id);
	finish(1);
}

static void await(struct cpu *me, const volatile u32 *at, u32 value)
{
	if (!is_soon(at, value))
		lose(me);
}

/* The one before must have come: an IRR has one bit for a vector. */
static void post(struct cpu *me, u32 targets, u32 dest, u32 icr)
{
	u8 vector = vector_of(me, random(me, V_LOWEST));

	for (u32 left = targets; left; left &= left - 1) {
		struct cpu *t = &cpus[first_of(left)];

		await(me, &t->received[vector], t->due[vector]);
		t->due[vector]++;
	}
	send_ipi(dest, icr | vector);
}

static void send_logical(struct cpu *me)
{
	u32 targets = phase.members, dest = 0;

	if (!phase.flat) /* of one cluster */
		targets &= 3u << (one_of(me, targets)->id & ~1u);
	targets = some_of(me, targets);
	for (u32 left = targets; left; left &= left - 1)
		dest |= logical_id(first_of(left), phase.flat);
	post(me, targets, dest, ICR_LOGICAL);
}

/* By shorthand or by a destination of ones. */
static void send_all(struct cpu *me)
{
	if (phase.mixed || random(me, 2))
		post(me, phase.members, 0, ICR_ALL);
	else
		post(me, phase.members, me->x2apic ? ~0u : 0xff, ICR_FIXED);
}

static u32 sum(u8 vector)
{
	u32 n = 0;

	for (u32 id = 0; id < CPUS_MAX; id++)
		n += cpus[id].received[vector];
	return n;
}

static void send_lowest(struct cpu *me)
{
	u8 vector = vector_of(me, V_LOWEST);
	u64 start = rdtsc();
	u32 dest = 0;

	for (u32 left = phase.members; left; left &= left - 1)
		if (phase.flat || first_of(left) / 2 == me->id / 2)
			dest |= logical_id(first_of(left), phase.flat);
	for (; sum(vector) != me->lowest; relax())
		if (rdtsc() - start > IPI_TIME)
			lose(me);
	me->lowest++;
	send_ipi(dest, ICR_LOGICAL | ICR_LOWEST | vector);
}

/* One NMI at a time for each CPU: it has no vector. */
static void send_nmi(struct cpu *me, u32 targets, u32 dest, u32 icr)
{
	for (u32 left = targets; left; left &= left - 1) {
		struct cpu *t = &cpus[first_of(left)];

		while (__atomic_exchange_n(&t->nmi_lock, 1, __ATOMIC_SEQ_CST))
			relax();
		t->due[VEC_NMI]++;
	}
	send_ipi(dest, icr | ICR_NMI);
	for (u32 left = targets; left; left &= left - 1) {
		struct cpu *t = &cpus[first_of(left)];

		await(me, &t->received[VEC_NMI], t->due[VEC_NMI]);
		__atomic_store_n(&t->nmi_lock, 0, __ATOMIC_SEQ_CST);
	}
}

/* There and back; whoever sent it sleeps meanwhile, or looks. */
static void send_echo(struct cpu *me, struct cpu *t, bool sleeps)
{
	u8 there = vector_of(me, V_ECHO), back = vector_of(me, V_ANSWER);

	t->due[there]++;
	me->due[back]++;
	send_ipi(t->id, ICR_FIXED | there);
	for (cli(); sleeps && me->received[back] != me->due[back];)
		halt_open();
	sti();
	await(me, &me->received[back], me->due[back]);
}

static void hold_back(struct cpu *me, bool masked)
{
	if (masked)
		write_cr8(15);
	else
		cli();
	rest(random(me, 4000));
	if (masked)
		write_cr8(0);
	else
		sti();
}

static void send(struct cpu *me, enum kind kind)
{
	u32 others = phase.members & ~(1u << me->id);
	struct cpu *t = one_of(me, others);

	switch (kind) {
	case FIXED:
		post(me, 1u << t->id, t->id, ICR_FIXED);
		break;
	case LOGICAL:
		send_logical(me);
		break;
	case ALL:
		send_all(me);
		break;
	case OTHERS:
		post(me, others, 0, ICR_OTHERS);
		break;
	case SELF:
		post(me, 1u << me->id, 0, ICR_SELF);
		break;
	case LOWEST:
		send_lowest(me);
		break;
	case NMI:
		send_nmi(me, 1u << t->id, t->id, 0);
		break;
	case NMI_OTHERS:
		send_nmi(me, others, 0, ICR_OTHERS);
		break;
	case ECHO:
		send_echo(me, t, random(me, 2));
		break;
	default:
		hold_back(me, kind == MASKED);
	}
}

/* Who has ended sleeps, and what the others send wakes it. */
static void sleep_to_the_end(void)
{
	u32 count = count_of(phase.members);

	cli();
	if (__atomic_add_fetch(&phase.ended, 1, __ATOMIC_SEQ_CST) == count)
		for (u32 left = phase.members; left; left &= left - 1)
			send_ipi(first_of(left), ICR_FIXED | V_WAKE);
	while (__atomic_load_n(&phase.ended, __ATOMIC_SEQ_CST) != count)
		halt_open();
	sti();
}

static void task_storm(struct cpu *me)
{
	bool part = phase.members != everybody();

	for (u32 n = 0; n < ROUNDS; n++) {
		enum kind kind = random(me, KINDS);

		if (part &&
		    (kind == ALL || kind == OTHERS || kind == NMI_OTHERS))
			kind = FIXED; /* shorthands reach those as well */
		send(me, kind);
		__atomic_fetch_add(&phase.counts[kind], 1, __ATOMIC_SEQ_CST);
	}
	sleep_to_the_end();
}

/* All that was sent has come, and no more. */
static void compare(void)
{
	rest(200000);
	for (u32 id = 0; id < CPUS_MAX; id++)
		for (u32 v = 0; v < V_WAKE; v++)
			if ((v - SENT_AT) % 16 != V_LOWEST || v < SENT_AT)
				check(cpus[id].received[v], cpus[id].due[v]);
	for (u32 id = 0; id < CPUS_MAX; id++) {
		check(sum(vector_of(&cpus[id], V_LOWEST)), cpus[id].lowest);
		check(cpus[id].received[V_SPURIOUS], 0);
	}
}

static void seed_all(u64 seed, u32 what)
{
	for (u32 id = 0; id < CPUS_MAX; id++)
		cpus[id].random = ((seed * 16 + what) * CPUS_MAX + id + 1) *
				  0x9E3779B97F4A7C15ull;
}

static void begin_storm(u32 members)
{
	phase.members = members;
	phase.ended = 0;
	memset(phase.counts, 0, sizeof(phase.counts));
	for (u32 left = members & ~(1u << this_cpu()->id); left;
	     left &= left - 1)
		begin(&cpus[first_of(left)], task_storm);
}

static void storm_of_ipis(u64 seed, const char *mode, u32 what)
{
	seed_all(seed, what);
	begin_storm(everybody());
	task_storm(this_cpu());
	end_all();
	compare();
	print("storm: seed %lu %s:", seed, mode);
	for (unsigned n = 0; n < KINDS; n++)
		print(" %s %u", kinds[n], phase.counts[n]);
	print("\n");
}

/* -- modes */

static void task_flat(struct cpu *me)
{
	(void)me;
	set_logical(phase.flat);
}

static void task_x2apic(struct cpu *me)
{
	if (!me->x2apic)
		enter_x2apic();
}

static void have_all(u32 mask, void (*task)(struct cpu *))
{
	struct cpu *me = this_cpu();

	for (u32 left = mask & ~(1u << me->id); left; left &= left - 1)
		begin(&cpus[first_of(left)], task);
	if (mask >> me->id & 1)
		task(me);
	end_all();
}

/* -- CPUs are stopped and started, whatever they do */

enum doing { RUNS, HALTS_OPEN, HALTS_CLOSED, SPINS_CLOSED, WAITS, DOINGS };

static void task_halt_open(struct cpu *me)
{
	for (me->stage = 1;;)
		halt_open();
}

static void task_halt_closed(struct cpu *me)
{
	cli();
	for (me->stage = 1;;)
		__asm__ volatile("hlt");
}

static void task_spin_closed(struct cpu *me)
{
	cli();
	for (me->stage = 1;;)
		me->beats++;
}

static struct {
	u32 dest, icr;
} order;

static void task_send(struct cpu *me)
{
	(void)me;
	send_ipi(order.dest, order.icr);
}

static void send_by(struct cpu *by, const struct cpu *t, u32 icr)
{
	if (by == this_cpu()) {
		send_ipi(t->id, icr);
		return;
	}
	order.dest = t->id;
	order.icr = icr;
	begin(by, task_send);
	end(by);
}

static void begin_doing(struct cpu *me, struct cpu *t, enum doing doing)
{
	static void (*const tasks[DOINGS])(struct cpu *) = {
		[HALTS_OPEN] = task_halt_open,
		[HALTS_CLOSED] = task_halt_closed,
		[SPINS_CLOSED] = task_spin_closed,
	};

	t->stage = 0;
	if (tasks[doing]) {
		begin(t, tasks[doing]);
		await(me, &t->stage, 1);
	}
	rest(random(me, 20000));
}

/* It does nothing, and nothing wakes it. */
static void check_stopped(struct cpu *me, struct cpu *by, struct cpu *t)
{
	u32 beats;

	rest(20000);
	beats = t->beats;
	if (random(me, 2))
		send_by(by, t, ICR_INIT); /* a second one */
	send_by(by, t, ICR_FIXED | V_STRAY);
	rest(20000);
	check(t->beats, beats);
}

static void start_one(struct cpu *me, struct cpu *by, struct cpu *t,
		      enum doing doing)
{
	u32 lives = t->lives, page = random(me, 2);

	begin_doing(me, t, doing);
	if (doing == WAITS) {
		send_by(by, t, ICR_INIT);
		rest(20000);
	} else if (random(me, 2)) {
		send_by(by, t, ICR_SIPI | start_vector(page)); /* ignored */
		rest(50000);
		check(t->lives, lives);
	}
	send_by(by, t, ICR_INIT);
	if (random(me, 2))
		check_stopped(me, by, t);
	send_by(by, t, ICR_SIPI | start_vector(page));
	if (random(me, 2))
		send_by(by, t, ICR_SIPI | start_vector(1 - page));
	await(me, &t->lives, lives + 1);
	rest(50000);
	check(t->lives, lives + 1);
	check(t->start_cs, start_vector(page) << 8);
	check(t->start_cr0 & ~0x60000000u, 0x10); /* SDM table 10-1 */
	if (is_monocle) /* Bochs 2.7 accepts it, though the APIC is off */
		check(t->received[V_STRAY], 0);
}

#define STARTS 8

/* Meanwhile the others storm, or one of them is who sends. */
static void starts_of(u64 seed, const char *mode, u32 what)
{
	static const char *const names[DOINGS] = {
		"runs", "halts-open", "halts-closed", "spins-closed", "waits"};
	struct cpu *me = this_cpu();
	u32 own = 1u << me->id, counts[DOINGS] = {0};

	seed_all(seed, what);
	for (u32 n = 0; n < STARTS; n++) {
		struct cpu *t = one_of(me, everybody() & ~own), *by = me;
		u32 others = everybody() & ~(1u << t->id);
		enum doing doing = random(me, DOINGS);

		if (random(me, 2) && count_of(others & ~own) > 1)
			begin_storm(others & ~own);
		else
			by = one_of(me, others);
		start_one(me, by, t, doing);
		end_all();
		counts[doing]++;
	}
	compare();
	print("storm: seed %lu starts %s:", seed, mode);
	for (unsigned n = 0; n < DOINGS; n++)
		print(" %s %u", names[n], counts[n]);
	print("\n");
}

/* -- the display's memory is moved by one, while the others look */

#define DISPLAY (2 << 11) /* 00:02.0, Bochs's VBE */
#define PLACES 0xD0000000u
#define PLACE (16 * MIB)
#define MOVES 10
#define CONTENT 0x53746F72u

static struct {
	volatile u32 step; /* odd: it is being changed */
	volatile u32 now, old;
	volatile bool open, ended;
	struct cpu *mover;
} map;

static void vbe(u16 index, u16 value)
{
	outw(0x1CE, index);
	outw(0x1CF, value);
}

/* 640 x 480, 32 bits a pixel: what is written stays. */
static void map_init(void)
{
	vbe(4, 0);
	vbe(1, 640);
	vbe(2, 480);
	vbe(3, 32);
	vbe(4, 0x41);
	map.open = true;
	map.now = map.old = config_read(DISPLAY, CONFIG_BAR0) & ~0xFu;
	for (u32 id = 0; id < CPUS_MAX; id++)
		write32(map.now + 4096 * id, CONTENT + id);
}

static void change(struct cpu *me)
{
	u32 command = config_read(DISPLAY, CONFIG_COMMAND), step = map.step;

	map.step = step + 1;
	if (!map.open || !random(me, 4)) {
		if (is_monocle) /* Bochs 2.7's card decodes ever */
			config_write(DISPLAY, CONFIG_COMMAND, command ^ MEMORY);
		map.open = !map.open;
	} else {
		map.old = map.now;
		map.now = PLACES + (u32)PLACE * random(me, 8);
		config_write(DISPLAY, CONFIG_BAR0, map.now);
	}
	map.step = step + 2;
}

static void wait_for_looks(struct cpu *me)
{
	for (u32 id = 0; id < CPUS_MAX; id++)
		if (cpus[id].is_there && id != me->id) {
			u32 seen = cpus[id].beats;
			u64 start = rdtsc();

			for (; cpus[id].beats - seen < 3; relax())
				if (rdtsc() - start > IPI_TIME)
					lose(me);
		}
}

/* What it was at one step; the place that it has left is nobody's. */
static void look(struct cpu *me)
{
	u32 step = map.step, now = map.now, old = map.old;
	u32 want = map.open || !is_monocle ? CONTENT + me->id : ~0u, here,
	    there = ~0u;

	if (step & 1)
		return;
	if (!is_monocle) /* Bochs's TLB keeps that nobody was there */
		write_cr3(read_cr3());
	here = read32(now + 4096 * me->id);
	if (old != now)
		there = read32(old + 4096 * me->id);
	if (map.step != step)
		return;
	me->beats++;
	me->wrong += here != want || there != ~0u;
}

static void task_map(struct cpu *me)
{
	if (map.mover != me) {
		while (!map.ended)
			look(me);
		return;
	}
	for (u32 n = 0; n < MOVES || !map.open; n++) {
		change(me);
		wait_for_looks(me);
	}
	map.ended = true;
}

static void map_of(u64 seed)
{
	struct cpu *me = this_cpu();

	seed_all(seed, 8);
	map.ended = false;
	map.mover = one_of(me, everybody());
	have_all(everybody(), task_map);
	for (u32 id = 0; id < CPUS_MAX; id++)
		check(cpus[id].wrong, 0);
	print("storm: seed %lu map: by %u, steps %u, at %x\n", seed,
	      map.mover->id, map.step, map.now);
}

/* -- the whole */

static void start_all(void)
{
	u32 me = this_cpu()->id;

	send_ipi(0, ICR_OTHERS | ICR_INIT);
	rest(1000000);
	for (u32 n = 0; n < 2; n++) {
		for (u32 id = 0; id < CPUS_MAX; id++)
			if (cpus[id].is_there && id != me)
				send_ipi(id, ICR_SIPI | start_vector(0));
		rest(20000);
	}
	for (u32 id = 0; id < CPUS_MAX; id++)
		if (cpus[id].is_there && id != me)
			await(&cpus[me], &cpus[id].lives, 1);
}

static void prepare(void)
{
	for (unsigned v = SENT_AT; v < V_WAKE; v++)
		handlers[v] = v % 16 == V_ECHO ? answer : count;
	handlers[V_WAKE] = handlers[V_STRAY] = count;
	handlers[V_SPURIOUS] = count_spurious;
	handlers[VEC_NMI] = count_nmi;
	phase.flat = true;
	cpus_init();
	start_all();
	rest(1000000);
	sti();
}

static void in_xapic_mode(u64 seed)
{
	storm_of_ipis(seed, "flat", 0);
	phase.flat = false;
	have_all(everybody(), task_flat);
	storm_of_ipis(seed, "clusters", 1);
	phase.flat = true;
	have_all(everybody(), task_flat);
	starts_of(seed, "xapic", 2);
}

/* There is no way back from x2APIC mode but one that Bochs 2.7 lacks. */
u8 storm(void)
{
	u64 first = option("seed", 1), last = first + option("seeds", 1);
	u32 mixed;

	prepare();
	check(cpu_count, option("cpus", 2));
	print("storm: %u CPUs\n", cpu_count);
	for (u64 seed = first; seed < last; seed++)
		in_xapic_mode(seed);
	phase.mixed = true;
	seed_all(first, 3);
	mixed = some_of(this_cpu(), everybody());
	have_all(mixed == everybody() ? mixed & (mixed - 1) : mixed,
		 task_x2apic);
	for (u64 seed = first; seed < last; seed++) {
		storm_of_ipis(seed, "mixed", 4);
		starts_of(seed, "mixed", 5);
	}
	phase.mixed = false;
	have_all(everybody(), task_x2apic);
	map_init();
	for (u64 seed = first; seed < last; seed++) {
		storm_of_ipis(seed, "x2apic", 6);
		starts_of(seed, "x2apic", 7);
		map_of(seed);
	}
	print("storm: %u failed\n", failures);
	return failures ? 1 : 0;
}

/* Ticks from an IPI to the answer, while who waits looks, or sleeps. */
void storm_echo(void)
{
	struct cpu *me, *t;
	u32 rounds = (u32)option("rounds", 1000);

	prepare();
	have_all(everybody(), task_x2apic);
	me = this_cpu();
	seed_all(1, 0);
	t = one_of(me, everybody() & ~(1u << me->id));
	for (u32 sleeps = 0; sleeps < 2; sleeps++) {
		u64 start = rdtsc();

		for (u32 n = 0; n < rounds; n++)
			send_echo(me, t, sleeps);
		print("bench: %s %lu\n",
		      sleeps ? "IPI and HLT" : "IPI and back",
		      (rdtsc() - start) / rounds);
	}
	finish(0);
}

/* -- an e1000's line, while one CPU aims its pin at each of them in turn */

#define RTE_MASKED 0x10000
#define V_LINE 0x52 /* by e1000_open() */

static struct {
	u32 aimed; /* how often */
	volatile bool ended;
} line;

static void line_came(struct frame *f)
{
	struct cpu *me = this_cpu();

	if (e1000_lower())
		me->received[f->vector]++;
	else
		me->wrong++;
	apic_set(LAPIC_EOI, 0);
}

/* As Linux does, masked meanwhile; or in one write. */
static void task_aim(struct cpu *me)
{
	u8 low = (u8)(0x10 + 2 * e1000_pin());
	u32 entry = ioapic_read(low);

	for (; !line.ended; line.aimed++) {
		bool masked = random(me, 2);

		if (masked)
			ioapic_write(low, entry | RTE_MASKED);
		ioapic_write(low + 1, one_of(me, everybody())->id << 24);
		if (masked)
			ioapic_write(low, entry);
		rest(random(me, 1000));
	}
}

static void raise_line(struct cpu *me, u32 n)
{
	u64 start = rdtsc();

	e1000_raise();
	for (; sum(V_LINE) != n; relax())
		if (rdtsc() - start > IPI_TIME)
			lose(me);
	rest(random(me, 2000));
}

void storm_line(void)
{
	u32 count = (u32)option("count", 3000), in_vain = 0;
	struct cpu *me;

	prepare();
	me = this_cpu();
	seed_all(1, 10);
	check_true(e1000_open(line_came));
	begin(one_of(me, everybody() & ~(1u << me->id)), task_aim);
	for (u32 n = 1; n <= count; n++)
		raise_line(me, n);
	line.ended = true;
	end_all();
	for (u32 id = 0; id < cpu_count; id++) {
		print("line: CPU %u: %u\n", id, cpus[id].received[V_LINE]);
		in_vain += cpus[id].wrong;
	}
	print("line: raised %u, in vain %u, aimed %u\n", count, in_vain,
	      line.aimed);
	finish(failures ? 1 : 0);
}

/* -- each CPU resets the machine in each way, while the others are busy */

#define STAGE 0x5B00 /* in CMOS: how many are done */

struct way {
	const char *name;
	void (*reset)(struct cpu *);
};

static void by_cf9(struct cpu *me)
{
	(void)me;
	outb(0xCF9, 0x02);
	outb(0xCF9, 0x06);
}

static void by_triple_fault(struct cpu *me)
{
	struct {
		u16 limit;
		u64 base;
	} __attribute__((packed)) nothing = {0, 0};

	(void)me;
	__asm__ volatile("lidt %0; ud2" : : "m"(nothing));
}

static void by_keyboard(struct cpu *me)
{
	(void)me;
	outb(0x64, 0xFE);
}

static const struct way ways[] = {
	{"port 0xCF9", by_cf9},
	{"triple fault", by_triple_fault},
	{"keyboard controller", by_keyboard},
};

void storm_resets(void)
{
	u32 n = cmos_get(), who;
	const struct way *way;
	struct cpu *me;

	n = (n & 0xFF00) == STAGE ? n & 0xFF : 0;
	cmos_set((u16)(STAGE | (n + 1)));
	prepare();
	me = this_cpu();
	if (n == cpu_count * COUNT(ways)) {
		print("storm: %u resets\n", n);
		finish(0);
	}
	who = n % cpu_count;
	way = &ways[n / cpu_count];
	seed_all(n, 9);
	for (u32 id = 0; id < CPUS_MAX; id++)
		if (cpus[id].is_there && id != me->id && id != who)
			begin_doing(me, &cpus[id], random(me, WAITS));
	print("storm: reset %u: by %s of CPU %u\n", n, way->name, who);
	have_all(1u << who, way->reset);
	print("storm: it does nothing\n");
	finish(1);
}
