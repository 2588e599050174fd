; SPDX-License-Identifier: MIT
; From 64-bit mode down to 32-bit paging of each kind and to real mode, and
; back. Each mode does what exits and leaves the results for modes.c.
%include "guests/layout.inc"

LAPIC_VERSION equ 0xfee00030
LINE	equ 0x3ff			; the UART's scratch register

extern gdt, gdt_pointer, pml4, page_directories

section .bss align=4096
global pae_pdpt, legacy_directory
pae_pdpt: resb 4096
legacy_directory: resb 4096

section .data align=16
; struct mode_results
global mode_results
mode_results:
.version32:	dd 0			; in compatibility mode
.version_flat:	dd 0			; no paging
.version_legacy: dd 0			; 4 MiB pages
.version_pae:	dd 0
.vendor:	dd 0			; CPUID 0 without paging
.ins:		dd 0			; INS in 32-bit code
.cr0:		dd 0			; as read in each: ORed
.efer:		dd 0			; without paging: LMA is off
global saved_rsp, kept_idt, to64
saved_rsp: dq 0
far_back: dd back64
	dw CODE64
real_idt: dw 0x3ff
	dd 0
	align 8
kept_idt: dw 0
	dq 0

section .text
bits 64
; void modes_protected(void)
global modes_protected
modes_protected:
	PUSH_KEPT
	mov [saved_rsp], rsp
	sidt [kept_idt]
	push qword CODE32
	push qword compat32
	retfq

bits 32
compat32:
	mov ax, DATA
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov eax, [LAPIC_VERSION]
	mov [mode_results.version32], eax
	mov al, 0x42
	mov dx, LINE
	out dx, al
	mov edi, mode_results.ins
	mov ecx, 3
	rep insb

	mov eax, cr0			; paging off: compatibility mode ends
	and eax, ~(1 << 31)
	mov cr0, eax
	jmp short .flat
.flat:	mov eax, [LAPIC_VERSION]
	mov [mode_results.version_flat], eax
	xor eax, eax
	cpuid
	mov [mode_results.vendor], ebx
	mov ecx, 0xc0000080
	rdmsr
	mov [mode_results.efer], eax
	and eax, ~(1 << 8)		; LME off
	wrmsr

	mov eax, cr4			; 32-bit paging, 4 MiB pages
	and eax, ~(1 << 5)
	or eax, 1 << 4
	mov cr4, eax
	mov eax, legacy_directory
	call with_paging
	mov [mode_results.version_legacy], ebx

	mov eax, cr4			; PAE paging
	or eax, 1 << 5
	mov cr4, eax
	mov eax, pae_pdpt
	call with_paging
	mov [mode_results.version_pae], ebx

; Back to 64-bit mode from 32-bit code without paging.
to64:	mov eax, pml4
	mov cr3, eax
	mov eax, cr4
	or eax, 1 << 5
	mov cr4, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 1 << 8
	wrmsr
	mov eax, cr0
	or eax, 1 << 31
	mov cr0, eax
	jmp far [far_back]

; Paging on with CR3 = eax; ebx: the version read there; paging off.
with_paging:
	mov cr3, eax
	mov eax, cr0
	or eax, 1 << 31
	mov cr0, eax
	jmp short .on
.on:	mov ebx, [LAPIC_VERSION]
	mov eax, cr0
	or [mode_results.cr0], eax
	and eax, ~(1 << 31)
	mov cr0, eax
	jmp short .off
.off:	ret

bits 64
back64:	mov ax, DATA
	mov ds, ax
	mov es, ax
	mov ss, ax
	lgdt [gdt_pointer]
	lidt [kept_idt]
	mov rsp, [saved_rsp]
	POP_KEPT
	ret

; -- real mode. modes.c copies real_start..real_end to a page below 1 MiB,
; sets the bases of CODE16 and DATA16 to it, and passes it.

; void modes_real(u32 page)
global modes_real
modes_real:
	PUSH_KEPT
	mov [saved_rsp], rsp
	sidt [kept_idt]
	mov ebp, edi
	push qword CODE32
	push qword .compat
	retfq
bits 32
.compat:
	LEAVE_LONG_MODE
	mov ax, DATA16
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov esp, 0xff0
	mov edx, ebp
	shr edx, 4			; the segment in real mode
	mov [far16.segment - real_start], dx
	mov [real_idt_at - real_start + 2], ebp
	add dword [real_idt_at - real_start + 2], 0x1000
	lidt [real_idt_at - real_start]
	jmp CODE16:enter16 - real_start

global real_start, real_end
real_start:
bits 16
enter16:
	mov eax, cr0
	and al, ~1
	mov cr0, eax
	jmp far [far16 - real_start]
far16:	dw real16 - real_start
.segment: dw 0
real_idt_at:
	dw 0x3ff
	dd 0
	align 4
; struct real_results
global real_results
real_results:
.vendor: dd 0
.port:	dw 0
.int:	dw 0				; INT 0x42's count
.ud:	dw 0				; #UD's count
.gp:	dw 0				; #GP's count
.stack:	dw 0				; what an exception pushed, bytes
.msw:	dw 0
.hlt:	dw 0				; interrupts that ended HLT
	dw 0

; The IVT at the next page: 4-byte entries, filled in here.
real16:	mov ax, cs
	mov ds, ax
	mov ss, ax
	mov sp, 0xff0
	mov es, ax
	mov word [es:0x1000 + 0x42 * 4], on_int - real_start
	mov [es:0x1000 + 0x42 * 4 + 2], cs
	mov word [es:0x1000 + 6 * 4], on_ud - real_start
	mov [es:0x1000 + 6 * 4 + 2], cs
	mov word [es:0x1000 + 13 * 4], on_gp - real_start
	mov [es:0x1000 + 13 * 4 + 2], cs
	mov word [es:0x1000 + 0x51 * 4], on_hlt - real_start
	mov [es:0x1000 + 0x51 * 4 + 2], cs
	xor eax, eax
	cpuid
	mov [real_results.vendor - real_start], ebx
	mov dx, LINE
	mov al, 0x99
	out dx, al
	in al, dx
	xor ah, ah
	mov [real_results.port - real_start], ax
	int 0x42
	mov [before_sp - real_start], sp
	ud2
	mov ecx, 0x12345		; no such MSR
	rdmsr
	smsw [real_results.msw - real_start]
	sti
	hlt
	cli
	mov eax, cr0			; and back
	or al, 1
	mov cr0, eax
	jmp dword CODE32:from16

before_sp: dw 0
on_int:	inc word [cs:real_results.int - real_start]
	iret
on_ud:	inc word [cs:real_results.ud - real_start]
	push bp
	mov bp, sp
	mov ax, [cs:before_sp - real_start]
	sub ax, bp
	sub ax, 2
	mov [cs:real_results.stack - real_start], ax
	add word [bp + 2], 2		; behind the UD2
	pop bp
	iret
on_gp:	inc word [cs:real_results.gp - real_start]
	push bp
	mov bp, sp
	add word [bp + 2], 2		; behind the RDMSR
	pop bp
	iret
on_hlt:	inc word [cs:real_results.hlt - real_start]
	iret
real_end:

bits 32
from16:	mov ax, DATA
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov esp, [saved_rsp]
	jmp to64

; -- to another kernel, as a boot loader enters it: 32 bits, paging off

bits 64
; void enter_kernel(u32 entry, u32 magic, u32 info)
global enter_kernel
enter_kernel:
	mov r8d, edx
	mov ebp, edi
	mov edi, esi
	mov esi, r8d
	push qword CODE32
	push qword .compat
	retfq
bits 32
.compat:
	mov ax, DATA
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov fs, ax
	mov gs, ax
	LEAVE_LONG_MODE
	xor eax, eax
	mov cr4, eax
	mov eax, edi
	mov ebx, esi
	jmp ebp
bits 64
