; SPDX-License-Identifier: MIT
; One stub of 8 bytes for each vector: a uniform struct trap_frame, then
; trap_handle(). The address that a stub's call pushes tells the vector.

extern trap_handle

section .text
bits 64

%assign n 0
%rep 256
align 8
%if n = 0
global trap_stubs
trap_stubs:
%endif
%if !(n = 8 || (n >= 10 && n <= 14) || n = 17 || n = 21)
	push byte 0		; the CPU pushes no error code for this one
%endif
	call trap_common
%assign n n + 1
%endrep

align 16
trap_common:
	cld
	push r15
	push r14
	push r13
	push r12
	push r11
	push r10
	push r9
	push r8
	push rdi
	push rsi
	push rbp
	push rbx
	push rdx
	push rcx
	push rax
	sub qword [rsp + 15 * 8], trap_stubs
	shr qword [rsp + 15 * 8], 3
	mov rdi, rsp
	call trap_handle
	pop rax
	pop rcx
	pop rdx
	pop rbx
	pop rbp
	pop rsi
	pop rdi
	pop r8
	pop r9
	pop r10
	pop r11
	pop r12
	pop r13
	pop r14
	pop r15
	add rsp, 16
	iretq
