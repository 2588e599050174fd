; SPDX-License-Identifier: MIT
; Hardware task switches of every kind in 32-bit protected mode with paging.
; Each step leaves what can be seen of it in switch_log; the same steps on the
; bare machine say what it has to be.
%include "guests/layout.inc"

extern gdt_pointer, saved_rsp, kept_idt, legacy_directory, to64
%define LAPIC 0xfee00000

; The first four are start.asm's.
TSS_A	equ 0x20			; the main task
TSS_B	equ 0x28
TSS_C	equ 0x30			; has an LDT and a CR3 of its own
TSS_H	equ 0x38			; for faults
TSS_X	equ 0x40			; what is wrong with it changes
TSS_N	equ 0x48			; in a page that is not present
TSS_16	equ 0x50
LDT	equ 0x58
GATE_B	equ 0x60
ABSENT	equ 0x68			; data, not present
NO_READ	equ 0x70			; code, not readable
CODE_AT	equ 0x78			; 32-bit code with task16 at 0
STACK16	equ 0x80
USER_CODE equ 0x88 | 3
USER	equ 0x90 | 3			; data
ABSENT_CODE equ 0x98
CONFORMING equ 0xa0

section .data align=16
%macro TSS32 5				; name, EIP, ESP, CR3, LDT
%1:	times 7 dd 0
	dd %4
	dd %2, 2
	dd %1 + 1, %1 + 2, %1 + 3, %1 + 4, %3, %1 + 5, %1 + 6, %1 + 7
	dd DATA, CODE32, DATA, DATA, DATA, 0
	dd %5, 104 << 16
%endmacro
noted:	dd 0, 0
	TSS32 tss_a, 0, 0, legacy_directory, 0
	TSS32 tss_b, task_b, stack_b, legacy_directory, 0
	TSS32 tss_c, task_c, stack_c, other_directory, LDT
	TSS32 tss_h, task_h, stack_h, legacy_directory, 0
	TSS32 tss_x, task_x, stack_x, legacy_directory, 0
tss_16:	times 7 dw 0
	dw 0, 2, 0x1601, 0x1602, 0x1603, 0x1604, 0x3f0, 0x1605, 0x1606, 0x1607
	dw DATA, CODE_AT, STACK16, DATA, 0
	TSS32 good, task_x, stack_x, legacy_directory, 0
ldt:	dq 0, 0x00cf92000000ffff	; 0x0c: data, not accessed yet

align 8
gdt32:	dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff
	times 8 dq 0
	dq 0x0000850000000000 | TSS_B << 16
	dq 0x00cf13000000ffff		; ABSENT
	dq 0x00cf99000000ffff		; NO_READ
	dq 0x00409b000000ffff		; CODE_AT
	dq 0x000093000000ffff		; STACK16
	dq 0x00cffb000000ffff, 0x00cff3000000ffff
	dq 0x00cf1b000000ffff, 0x00cf9f000000ffff
gdt32_end:
gdt32_pointer:
	dw gdt32_end - gdt32 - 1
	dd gdt32
idt32_pointer:
	dw 0x60 * 8 - 1
	dd idt32
; base, limit and rights, of TSS_A to LDT
systems: dd tss_a, 0x8967, tss_b, 0x8967, tss_c, 0x8967, tss_h, 0x8967
	dd tss_x, 0x8967, 0x3fc00000, 0x8967, tss_16, 0x812b, ldt, 0x820f
; What is wrong with tss_x: offset, value
wrongs:	dd 0x60, 0x54			; LDT: in itself
	dd 0x60, DATA			; ... no LDT
	dd 0x60, 0x7ff8			; ... behind the GDT
	dd 0x4c, 0			; CS
	dd 0x4c, DATA
	dd 0x4c, USER_CODE & ~3
	dd 0x4c, ABSENT_CODE
	dd 0x4c, 0x7ff8
	dd 0x50, 0			; SS
	dd 0x50, CODE32
	dd 0x50, DATA | 3
	dd 0x50, USER
	dd 0x50, ABSENT
	dd 0x50, 0x0c			; of the LDT that there is not
	dd 0x54, NO_READ		; DS
	dd 0x54, ABSENT
	dd 0x48, DATA | 3		; ES
	dd 0x58, 0x7ff8			; FS
	dd 0x5c, TSS_B			; GS
	dd 0x20, 0			; nothing: goes on at task_x
wrongs_end:
global log_at
log_at:	dd switch_log
step:	dd 0

section .bss align=4096
other_directory: resb 4096
idt32:	resb 0x60 * 8
global switch_log
switch_log: resb 65536
	resb 1024
stack_a: resb 1024
stack_b: resb 1024
stack_c: resb 1024
stack_h: resb 1024
stack_x: resb 1024
stack_16: resb 1024

section .text
bits 64
; void switches(u32 low_page)
global switches
switches:
	PUSH_KEPT
	mov [saved_rsp], rsp
	sidt [kept_idt]
	mov ebp, edi
	mov byte [rbp], 0xcc		; INT3, for virtual-8086 mode
	push qword CODE32
	push qword switch32
	retfq
bits 32
%macro STEP 1
	mov dword [step], %1
%endmacro
%macro GATE 2				; vector, low dword, of type
	mov dword [idt32 + 8 * %1], (%2) << 16
	mov dword [idt32 + 8 * %1 + 4], 0xe500
%endmacro
%macro HANDLER 2			; vector, where
	mov eax, %2
	mov ax, CODE32
	ror eax, 16
	mov eax, %2
	and eax, 0xffff
	or eax, CODE32 << 16
	mov [idt32 + 8 * %1], eax
	mov eax, %2
	and eax, 0xffff0000
	or eax, 0x8e00
	mov [idt32 + 8 * %1 + 4], eax
%endmacro

switch32:
	mov ax, DATA
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov esp, stack_b - 16
	LEAVE_LONG_MODE
	mov esi, systems
	mov edi, gdt32 + TSS_A
.sys:	lodsd
	mov ebx, eax
	lodsd
	call descriptor
	add edi, 8
	cmp edi, gdt32 + LDT
	jbe .sys
	mov ebx, task_16
	mov edi, gdt32 + CODE_AT
	call set_base
	mov ebx, stack_16
	mov edi, gdt32 + STACK16
	call set_base
	lgdt [gdt32_pointer]
	GATE 3, TSS_B
	GATE 6, TSS_B
	GATE 0x30, TSS_B
	GATE 0x51, TSS_B
	GATE 10, TSS_H
	GATE 11, TSS_H
	GATE 12, TSS_H
	GATE 13, TSS_H
	HANDLER 14, on_pf
	HANDLER 1, on_db
	lidt [idt32_pointer]
	mov esi, legacy_directory	; 4 MiB pages, as modes.c left them
	mov edi, other_directory
	mov ecx, 1024
	rep movsd
	mov dword [legacy_directory + 4 * 0xff], 0
	mov eax, cr4
	and eax, ~(1 << 5)
	or eax, 1 << 4
	mov cr4, eax
	mov eax, legacy_directory
	mov cr3, eax
	mov eax, cr0
	or eax, 1 << 31
	mov cr0, eax
	jmp short .paged
.paged:	mov esp, stack_b - 16
	mov ax, TSS_A
	ltr ax
	mov eax, 0x555			; L0 to L3 and LE: none matches
	mov dr7, eax
	clts
	mov ebx, 0xb0b0b0b0
	STEP 1
	jmp TSS_B:0			; B's jmp is where it goes on
	call snap
	STEP 2
	call TSS_B:0x12345678
	call snap
	STEP 3
	call GATE_B:0
	call snap
	STEP 4
	int 0x30
	call snap
	STEP 5
	int3
	call snap
	STEP 6
	ud2
	call snap
	STEP 7
	mov dword [LAPIC + 0x300], 0x40051 ; to itself
	sti
	nop
	nop
	cli
	call snap
	STEP 8
	mov eax, 0x7ff8			; #GP by a gate: an error code
	mov fs, ax
.gp:	call snap
	STEP 9
	call TSS_C:0
	call snap
	STEP 10
	call TSS_C:0
	call snap
	STEP 11
	jmp TSS_16:0
	call snap
	STEP 12
	call TSS_16:0
	call snap
	STEP 13
	jmp TSS_N:0			; #PF here
	call snap
	STEP 14				; a trap before the first instruction
	call make_x
	mov byte [tss_x + 0x64], 1
	jmp TSS_X:0
	call snap
	STEP 15				; ring 3
	call make_x
	mov dword [tss_x + 0x20], task_user
	mov dword [tss_x + 0x48], USER
	mov dword [tss_x + 0x4c], USER_CODE
	mov dword [tss_x + 0x50], USER
	mov dword [tss_x + 0x54], USER
	mov dword [tss_x + 0x58], 0
	jmp TSS_X:0
	call snap
	STEP 16				; conforming code, and a data segment
	call make_x
	mov dword [tss_x + 0x4c], CONFORMING
	mov dword [tss_x + 0x58], CONFORMING
	jmp TSS_X:0
	call snap
	STEP 17				; virtual-8086 mode
	call make_x
	mov eax, ebp
	shr eax, 4
	mov [tss_x + 0x4c], eax
	mov dword [tss_x + 0x20], 0
	mov dword [tss_x + 0x24], 1 << 17 | 2
	mov dword [tss_x + 0x38], 0xf00
	jmp TSS_X:0
	call snap
	mov dword [tss_x + 0x4c], 0	; where the page is differs
	mov dword [.next], wrongs
.wrong:	inc dword [step]
	call make_x
	mov esi, [.next]
	mov eax, [esi]
	mov edx, [esi + 4]
	cmp eax, 0x20
	je .last
	mov [tss_x + eax], edx
.last:	add dword [.next], 8
	jmp TSS_X:0
	call snap
	cmp dword [.next], wrongs_end
	jne .wrong
	mov eax, 0x400
	mov dr7, eax
	mov eax, cr0
	and eax, ~(1 << 31)
	mov cr0, eax
	jmp short .done
.done:	jmp to64
section .data
.next:	dd 0
section .text

; A descriptor at edi: base ebx; eax: rights << 8 | limit
descriptor:
	movzx ecx, al
	mov [edi], ecx
	mov [edi + 4], eax
	and dword [edi + 4], 0xff00
set_base:
	mov [edi + 2], bx
	mov eax, ebx
	shr eax, 16
	mov [edi + 4], al
	mov [edi + 7], ah
	ret

; tss_x as it should be, not busy
make_x:	mov esi, good
	mov edi, tss_x
	mov ecx, 26
	rep movsd
	mov byte [gdt32 + TSS_X + 5], 0x89
	ret

task_b:	call snap
	jmp TSS_A:0
.again:	call snap
	mov dword [LAPIC + 0xb0], 0	; EOI, of step 7
	cmp dword [step], 6
	jne .iret
	add dword [tss_a + 0x20], 2	; behind the UD2
.iret:	cmp dword [step], 15		; from ring 3 and virtual-8086 mode
	jae .home
	iret
	jmp .again
.home:	and byte [gdt32 + TSS_A + 5], ~2
	jmp TSS_A:0
	jmp .again

task_c:	call snap
	lar eax, [.in_ldt]		; accessed by now?
	call note
	mov ax, 0x0c
	mov ds, ax
	mov fs, ax
	iret
	call snap
	iret
.in_ldt: dw 0x0c

task_h:	call snap
	pop eax				; the error code
	call note
	cmp dword [step], 8
	jne .home
	add dword [tss_a + 0x20], 2	; behind the MOV
	iret
	jmp task_h
.home:	and byte [gdt32 + TSS_A + 5], ~2
	jmp TSS_A:0
	jmp task_h

task_x:	call snap
	jmp TSS_A:0

task_user:
	int 0x30

task_16:
	call snap
	jmp TSS_A:0
	call snap
	iret
	hlt

on_pf:	pop eax
	call note
	mov eax, cr2
	call note
	call snap
	add dword [esp], 7
	iret

on_db:	mov eax, dr6
	call note
	call snap
	iret

note:	push dword [noted]
	pop dword [noted + 4]
	mov [noted], eax
	ret

; All that can be seen of the task in hand, and of those that wait.
snap:	pushfd
	pushad
	push es
	mov ax, DATA
	mov es, ax
	cld
	mov edi, [log_at]
	mov esi, esp
	mov eax, [step]
	stosd
	xor eax, eax
	sldt ax
	stosd
	str ax
	stosd
	mov ebx, 0xffffffff
	cmp ax, TSS_16			; upper halves: not defined
	jne .wide
	shr ebx, 16
	movzx esi, si
.wide:	ss lodsw			; ES
	movzx eax, ax
	stosd
	add esi, 2
	mov ecx, 9			; registers and flags
.reg:	ss lodsd
	and eax, ebx
	stosd
	loop .reg
	mov eax, cr0
	and eax, 8			; TS
	stosd
	clts
	mov eax, cr3
	stosd
	mov eax, dr7
	stosd
	xor eax, eax
	mov ax, ds
	stosd
	mov ax, fs
	stosd
	mov ax, gs
	stosd
	mov ax, ss
	stosd
	mov ax, cs
	stosd
	mov esi, gdt32 + TSS_A
	mov ecx, 8
.type:	movzx eax, byte [esi + 5]
	stosd
	add esi, 8
	loop .type
	mov esi, noted
	mov ecx, 2 + 5 * 26 + 11	; ... the TSSs
	rep movsd
	mov [log_at], edi
	pop es
	popad
	popfd
	ret
