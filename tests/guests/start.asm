; SPDX-License-Identifier: MIT
; The tiny guest's beginning: Multiboot 1 (0.6.96) to 64-bit C, its interrupt
; stubs, and the way out of an instruction that faults.
%include "guests/layout.inc"

section .multiboot align=4
	dd 0x1badb002, FLAGS, -(0x1badb002 + FLAGS)
FLAGS equ 3				; modules on pages, a memory map

section .tables progbits alloc write noexec align=4096
global pml4, pdpt, page_directories, small_pages
pml4:	times 4096 db 0
pdpt:	times 4096 db 0
page_directories: times 4 * 4096 db 0	; 0-4 GiB in 2 MiB pages
small_pages: times 4096 db 0
global idt
idt:	times 4096 db 0
section .bss align=4096
stack:	resb 65536
stack_end:
fault_stack: resb 8192			; #DF and NMI: IST 1 and 2
fault_stack_end:
nmi_stack: resb 8192
nmi_stack_end:

section .tables progbits alloc write noexec align=4096
global gdt, gdt_end, gdt_pointer, tss64
gdt:	dq 0
	dq 0x00af9b000000ffff		; CODE64
	dq 0x00cf93000000ffff		; DATA
	dq 0x00cf9b000000ffff		; CODE32
	dq 0x00009b000000ffff		; CODE16, its base is set at run time
	dq 0x000093000000ffff		; DATA16
	dq 0x00aff3000000ffff		; USER_DATA
	dq 0x00affb000000ffff		; USER_CODE64
	dq 0, 0				; TSS
gdt_end:
gdt_pointer:
	dw gdt_end - gdt - 1
	dq gdt
tss64:	times 102 db 0
	dw 104				; no I/O bitmap

section .text
bits 32
global start
start:	cld
	cli
	mov esp, stack_end
	push 0				; the magic and the information, for
	push ebx			; the 64-bit pops
	push 0
	push eax
	call make_tables
	mov eax, pml4
	mov cr3, eax
	mov eax, cr4
	or eax, 1 << 5 | 3 << 9		; PAE, OSFXSR, OSXMMEXCPT
	mov cr4, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 1 << 8			; EFER.LME
	wrmsr
	mov eax, cr0
	or eax, 1 << 31 | 1 << 16 | 1 << 5 | 1 << 1 ; PG, WP, NE, MP
	and eax, ~(1 << 2)		; EM
	mov cr0, eax
	lgdt [gdt_pointer]
	jmp CODE64:start64

make_tables:
	mov dword [pml4], pdpt + 3
	mov ecx, 4
	mov eax, page_directories + 3
	mov edi, pdpt
.pdpt:	mov [edi], eax
	add eax, 4096
	add edi, 8
	loop .pdpt
	mov eax, 0x83			; present, writable, 2 MiB
	mov edi, page_directories
	mov ecx, 2048
.pd:	mov [edi], eax
	add eax, 0x200000
	add edi, 8
	loop .pd
	ret

bits 64
extern guest_main
start64:
	LOAD_SEGMENTS
	call load_tss
	pop rdi
	pop rsi
	call guest_main
.stop:	cli
	hlt
	jmp .stop

; Rings 1-2 are unused; RSP0 and the IST stacks.
global load_tss
load_tss:
	mov rax, stack_end - 4096
	mov [tss64 + 4], rax
	mov rax, fault_stack_end
	mov [tss64 + 36], rax
	mov rax, nmi_stack_end
	mov [tss64 + 44], rax
	mov rax, tss64
	mov rdx, 0x0000890000000067	; available 64-bit TSS, limit 0x67
	mov rcx, rax
	and ecx, 0xffffff
	shl rcx, 16
	or rdx, rcx
	mov rcx, rax
	shr rcx, 24
	shl rcx, 56
	or rdx, rcx
	mov [gdt + TSS], rdx
	shr rax, 32
	mov [gdt + TSS + 8], rax
	mov ax, TSS
	ltr ax
	ret

; int try_call(void (*f)(void *), void *arg, u64 *rsp_out): -1, or the vector
; of the exception that ended f.
global try_call, try_return, try_rsp
section .data
try_rsp: dq 0
section .text
try_call:
	PUSH_KEPT
	mov [try_rsp], rsp
	mov rax, rdi
	mov rdi, rsi
	call rax
	mov eax, -1
try_return:				; trap() comes here, vector in eax
	mov qword [try_rsp], 0
	POP_KEPT
	ret

; int user_call(void (*f)(void *), void *arg, u64 flags): as try_call, in ring 3
; with these RFLAGS. f's pages and the stack must be the user's.
global user_call
user_call:
	PUSH_KEPT
	mov [try_rsp], rsp
	push USER_DATA
	push user_stack_end - 8
	push rdx
	push USER_CODE64
	push rdi
	mov rdi, rsi
	mov qword [user_stack_end - 8], .done
	iretq
.done:	int USER_EXIT

section .bss align=4096
	resb 8192
user_stack_end:
section .text

; Stubs of 16 bytes: vectors with an error code have one already.
extern trap
global stubs
align 16
stubs:
%assign v 0
%rep 256
align 16
%if !(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21)
	push 0
%endif
	push v
	jmp stub_common
%assign v v + 1
%endrep

stub_common:
	push rax
	push rcx
	push rdx
	push rbx
	push rbp
	push rsi
	push rdi
	push r8
	push r9
	push r10
	push r11
	push r12
	push r13
	push r14
	push r15
	cld
	mov rdi, rsp
	mov rbx, rsp
	and rsp, -16
	call trap
	mov rsp, rbx
	pop r15
	pop r14
	pop r13
	pop r12
	pop r11
	pop r10
	pop r9
	pop r8
	pop rdi
	pop rsi
	pop rbp
	pop rbx
	pop rdx
	pop rcx
	pop rax
	add rsp, 16
	iretq
