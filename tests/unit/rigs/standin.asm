; SPDX-License-Identifier: MIT
; A stand-in for Monocle in the tests of the rigs: it shows the strings that
; GRUB hands over, echoes the serial line in capitals, shows keys, and leaves
; with the end line END when a q comes in (at once with AT_ONCE; never with an
; end line where END is empty, but by a triple fault).

%define LOAD	0x200000
MAGIC		equ 0xe85250d6
COM1		equ 0x3f8
LSR		equ COM1 + 5

bits 32
org LOAD
header:
	dd MAGIC, 0, header_end - header
	dd 0x100000000 - (MAGIC + header_end - header)
	dw 2, 0			; addresses (Multiboot2 3.1.5)
	dd 24, header, LOAD, 0, 0
	dw 3, 0			; entry (3.1.6)
	dd 12, start
	align 8, db 0
	dw 0, 0
	dd 8
header_end:

start:
	mov esp, stack
	mov edi, 0xb8000
	mov eax, 0x1f531f53	; "SS", white on blue
	mov ecx, 80 * 25 / 2
	rep stosd
	mov ebp, uart
.uart:	movzx edx, byte [ebp]
	or edx, COM1
	mov al, [ebp + 1]
	out dx, al
	add ebp, 2
	cmp ebp, uart_end
	jb .uart
	lea esi, [ebx + 8]
.tag:	mov eax, [esi]
	test eax, eax
	jz loop
	cmp eax, 1
	jne .no_line
	mov ebx, line
	lea ecx, [esi + 8]
	call show
.no_line:
	cmp eax, 3
	jne .next
	mov ebx, module
	lea ecx, [esi + 16]
	call show
.next:	add esi, [esi + 4]
	add esi, 7
	and esi, ~7
	jmp .tag

loop:
%ifdef AT_ONCE
	jmp leave
%endif
	mov dx, LSR
	in al, dx
	test al, 1
	jz .key
	mov dx, COM1
	in al, dx
	cmp al, 'q'
	je leave
	and al, ~0x20
	out dx, al
.key:	in al, 0x64
	test al, 1
	jz loop
	in al, 0x60
	mov ebx, key
	aam 16
	movzx ecx, ah
	mov ch, [hex + ecx]
	movzx eax, al
	mov cl, [hex + eax]
	xchg cl, ch
	mov [digits], cx
	mov ecx, digits
	call show
	jmp loop

leave:
	mov ebx, end
	mov ecx, empty
	cmp byte [ebx], 0
	je .die
	call show
.halt:	cli
	hlt
	jmp .halt
.die:	lidt [no_idt]
	int3

; Print the strings at ebx and ecx and a newline.
show:	push eax
	call print
	mov ebx, ecx
	call print
	mov al, 10
	out 0xe9, al
	pop eax
	ret
print:	mov al, [ebx]
	inc ebx
	test al, al
	jz .done
	out 0xe9, al
	jmp print
.done:	ret

uart:	db 3, 0x80, 0, 1, 1, 0, 3, 3, 2, 7, 4, 3	; 115200 8n1, FIFO
uart_end:
line:	db "monocle: options: ", 0
module:	db "monocle: module: ", 0
key:	db "monocle: key: ", 0
digits:	db "00", 0
hex:	db "0123456789ABCDEF"
end:	db END
empty:	db 0
align 8
no_idt:	dw 0
	dd 0
	times 256 db 0
stack:
