; SPDX-License-Identifier: MIT
; Where a further CPU starts: real mode at the page that the SIPI names, to
; which the code from cpu_trampoline on is copied; then 64-bit C, on a stack of
; its own by its APIC ID (SDM 9.4.4). Its first CS, CR0 and EDX are cpu_main()'s
; arguments.
%include "guests/layout.inc"

CPUS	equ 8				; guest.h
STACK	equ 8192

extern pml4, gdt, cpu_main

section .rodata
global cpu_trampoline, cpu_trampoline_end
bits 16
cpu_trampoline:
	cli
	cld
	mov esi, edx
	mov ebp, cr0
	xor edi, edi
	mov di, cs
	mov ds, di
	o32 lgdt [pointer - cpu_trampoline]
	mov eax, 1 << 5 | 3 << 9	; as start.asm
	mov cr4, eax
	mov eax, pml4
	mov cr3, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 1 << 8			; EFER.LME
	wrmsr
	mov eax, 0x80010033		; PG, WP, NE, MP, PE
	mov cr0, eax
	jmp dword CODE64:cpu_start64
align 8
pointer:
	dw TSS - 1
	dd gdt
cpu_trampoline_end:

section .text
bits 64
cpu_start64:
	LOAD_SEGMENTS
	mov eax, 1
	cpuid
	shr ebx, 24			; its APIC ID
	cmp ebx, CPUS
	jae .stop
	inc ebx
	imul ebx, STACK
	lea rsp, [cpu_stacks + rbx]
	mov edx, esi
	mov esi, ebp
	call cpu_main
.stop:	cli
	hlt
	jmp .stop

section .bss align=4096
cpu_stacks: resb CPUS * STACK
