; SPDX-License-Identifier: MIT
section .text
bits 64

; int rdmsr_safe(u32 msr, u64 *value): 0, or -EFAULT where the CPU has no
; such MSR; trap_handle() sends the #GP at rdmsr_fault on to rdmsr_recover.
global rdmsr_safe
global rdmsr_fault
global rdmsr_recover
rdmsr_safe:
	mov ecx, edi
rdmsr_fault:
	rdmsr
	shl rdx, 32
	or rax, rdx
	mov [rsi], rax
	xor eax, eax
	ret
rdmsr_recover:
	mov eax, -14
	ret

; void cpu_sleep(const void *line, u32 hint): MWAIT once, with the hint and
; watching the line, or HLT where the hint is 0x100, unless the CPU has been told
; to look around. An NMI on the way into sleep (from the first of these labels to
; the second) has it go on at the third: kernel/traps.c.
PERCPU_ATTENTION equ 24		; kernel/percpu.h
NO_HINT		equ 0x100	; kernel/park.h
global cpu_sleep
global cpu_sleep_window
global cpu_sleep_last
global cpu_sleep_out
cpu_sleep:
	mov rax, rdi
	xor ecx, ecx
	xor edx, edx
cpu_sleep_window:
	cmp dword [gs:PERCPU_ATTENTION], 0
	jne cpu_sleep_out
	cmp esi, NO_HINT
	je .halt
	monitor
	mov eax, esi
	mwait
	ret
.halt:	hlt
cpu_sleep_last:
cpu_sleep_out:
	ret
