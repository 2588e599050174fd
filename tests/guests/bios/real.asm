; SPDX-License-Identifier: MIT
; A real-mode program for the BIOS's own services: a boot sector and what
; follows it, loaded at 0000:7C00 as a whole. Byte 3 says what it does, the
; dword at 4 how often. It speaks on COM1, waits there for a byte where the
; screen is to be looked at, resets the machine if that is an r, and ends by the
; debug exit port or (natively) by Bochs's power-off.

bits 16
org 0x7c00

COM1	equ 0x3f8
BUFFER	equ 0x2000		; below the image: free on every PC

start:	jmp short begin
	db 0			; 2: align
case:	db 0			; 3: which case
rounds:	dd 100000		; 4: of load

begin:	jmp 0:.here		; from a CD it starts at 07C0:0000
.here:	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, 0x7c00
	cld
	sti
	mov dx, COM1 + 3	; 115200 8N1, no interrupts, FIFO off
	mov al, 0x80
	out dx, al
	mov dx, COM1
	mov ax, 1
	out dx, al
	mov al, ah
	inc dx
	out dx, al
	mov dx, COM1 + 3
	mov al, 3
	out dx, al
	mov bl, [case]
	xor bh, bh
	add bx, bx
	call [cases + bx]
	mov si, ready
	call say
	call wait_byte
	cmp al, 'r'
	jne finish
	cli			; nothing of this may outlive a reset
	xor di, di
	mov cx, 0x500
	mov al, 0xcc
	rep stosb
	mov dx, 0xcf9
	mov al, 6
	out dx, al
	hlt

wait_byte:
	mov dx, COM1 + 5
.more:	in al, dx
	test al, 1
	jz .more
	mov dx, COM1
	in al, dx
	ret

finish:	xor ax, ax
	mov dx, 0xf4
	out dx, ax
	mov dx, 0xb004		; Bochs's ACPI: S5
	mov ax, 0x2000
	out dx, ax
	cli
	hlt
	jmp $

times 510 - ($ - $$) db 0
	db 0x55, 0xaa

cases:	dw text, mode13, vbe, report, load, acpi

ready:	db "bios: ready", 10, 0

; --- on the serial line -----------------------------------------------------
put:	push dx			; AL
	push ax
	mov dx, COM1 + 5
.wait:	in al, dx
	test al, 0x20
	jz .wait
	pop ax
	mov dx, COM1
	out dx, al
	pop dx
	ret

say:	lodsb			; SI
	test al, al
	jz .end
	call put
	jmp say
.end:	ret

hex32:	push eax		; EAX, and a blank
	shr eax, 16
	call hex16
	pop eax
hex16:	push ax
	mov al, ah
	call hex8
	pop ax
hex8:	push ax
	shr al, 4
	call .digit
	pop ax
	and al, 15
.digit:	cmp al, 10
	sbb al, 0x69
	das
	jmp put

line:	mov al, 10
	jmp put
blank:	mov al, ' '
	jmp put

; --- pictures ---------------------------------------------------------------
text:	mov ax, 3
	int 0x10
	mov ah, 1		; no cursor, which blinks
	mov cx, 0x2000
	int 0x10
	xor di, di		; rows in their own colours
.row:	mov ah, 2
	xor bx, bx
	mov dx, di
	mov dh, dl
	xor dl, dl
	int 0x10
	mov ax, di
	and al, 15
	mov bx, ax
	jnz .seen
	mov bl, 7
.seen:	mov ah, 9
	mov al, 'A'
	add ax, di
	xor bh, bh
	mov cx, 70
	int 0x10
	inc di
	cmp di, 24
	jb .row
	mov ah, 2
	mov dx, 0x1800
	xor bx, bx
	int 0x10
	mov si, hello
.char:	lodsb
	test al, al
	jz .end
	mov ah, 0xe
	mov bx, 7
	int 0x10
	jmp .char
.end:	ret
hello:	db "The BIOS's own INT 10h", 0

mode13:	mov ax, 0x13
	int 0x10
	mov ax, 0xa000
	mov es, ax
	xor di, di
	xor dx, dx
.row:	xor cx, cx
.dot:	mov ax, cx
	shr ax, 2
	mov bx, dx
	shr bx, 1
	xor al, bl
	stosb
	inc cx
	cmp cx, 320
	jb .dot
	inc dx
	cmp dx, 200
	jb .row
	xor ax, ax
	mov es, ax
	ret

; 640 x 480 x 8 bits, linear, drawn in unreal mode
vbe:	mov ax, 0x4f01
	mov cx, 0x101
	mov di, BUFFER
	int 0x10
	cmp ax, 0x4f
	jne .none
	mov si, .base
	call say
	mov eax, [BUFFER + 0x28]
	call hex32
	call line
	mov ax, 0x4f02
	mov bx, 0x4101
	int 0x10
	cmp ax, 0x4f
	jne .none
	call unreal
	mov edi, [BUFFER + 0x28]
	xor edx, edx
.row:	xor ecx, ecx
.dot:	mov eax, ecx
	xor eax, edx
	shr eax, 2
	mov [fs:edi], al
	inc edi
	inc ecx
	cmp ecx, 640
	jb .dot
	inc edx
	cmp edx, 480
	jb .row
	ret
.none:	mov si, .no
	jmp say
.base:	db "lfb ", 0
.no:	db "no VBE", 10, 0

; FS gets a limit of 4 GiB
unreal:	cli
	lgdt [gdtr]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	jmp $ + 2
	mov bx, FLAT
	mov fs, bx
	and al, 0xfe
	mov cr0, eax
	jmp $ + 2
	sti
	ret

align 8
gdt:	dq 0
CODE16	equ $ - gdt
	dq 0x00009b000000ffff
DATA16	equ $ - gdt
	dq 0x000093000000ffff
FLAT	equ $ - gdt
	dq 0x00cf93000000ffff
CODE32	equ $ - gdt
	dq 0x00cf9b000000ffff
TASK	equ $ - gdt
	dw tss_end - tss - 1, tss, 0x8900, 0
gdt_end:
gdtr:	dw gdt_end - gdt - 1
	dd gdt

; --- what the BIOS says -----------------------------------------------------
report:	mov dword [BUFFER], 'VBE2'
	mov ax, 0x4f00
	mov di, BUFFER
	int 0x10
	call hex16
	call line
	lfs si, [BUFFER + 0x0e]
.mode:	mov ax, [fs:si]
	add si, 2
	cmp ax, 0xffff
	je .modes
	call hex16
	call blank
	jmp .mode
.modes:	call line
	xor ebx, ebx
.e820:	mov eax, 0xe820
	mov edx, 0x534d4150
	mov ecx, 20
	mov di, BUFFER
	int 0x15
	jc .rows
	push ebx
	mov si, .row
	call say
	mov si, BUFFER
	mov cx, 5
.word:	lodsd
	call hex32
	call blank
	loop .word
	call line
	pop ebx
	test ebx, ebx
	jnz .e820
.rows:	mov si, .memory
	call say
	int 0x12
	call hex16
	call blank
	mov ax, 0xe801
	int 0x15
	call hex16
	call blank
	mov ax, bx
	call hex16
	call blank
	mov ah, 0x88
	int 0x15
	call hex16
	call line
	mov si, .disk
	call say
	mov ax, 0x0201		; one sector of the first disk
	mov cx, 1
	mov dx, 0x80
	mov bx, BUFFER
	int 0x13
	sbb al, al
	call hex16
	call line
	ret
.row:	db "e820 ", 0
.memory: db "memory ", 0
.disk:	db "disk ", 0

; --- ACPI -------------------------------------------------------------------
; Whatever has an RSDP's signature where 5.2.5.1 has it searched, and by its RSDT
; every table, in hex
acpi:	call unreal
	movzx esi, word [0x40e]	; the EBDA
	shl esi, 4
	mov cx, 1024 / 16
	call .search
	mov esi, 0xe0000
	mov cx, 0x20000 / 16
.search:
	cmp dword [fs:esi], 'RSD '
	jne .next
	cmp dword [fs:esi + 4], 'PTR '
	je .rsdp
.next:	add esi, 16
	loop .search
	ret
.rsdp:	pushad
	mov edi, esi
	mov ecx, 36
	call dump
	mov edi, [fs:esi + 16]
	call table
	sub cx, 36
	shr cx, 2
	jz .last
.entry:	add edi, 4
	push cx
	push edi
	mov edi, [fs:edi + 32]
	call table
	cmp dword [fs:edi], 'FACP'
	jne .other
	mov edi, [fs:edi + 40]	; DSDT
	call table
.other:	pop edi
	pop cx
	loop .entry
.last:	popad
	jmp .next

table:	mov ecx, [fs:edi + 4]	; at EDI
	cmp ecx, 0x4000
	jb dump
	mov ecx, 36		; it is none
dump:	pushad
	mov al, '@'
	call put
	mov eax, edi
	call hex32
	call blank
.byte:	mov al, [fs:edi]
	call hex8
	inc edi
	loop .byte
	call line
	popad
	ret

; --- every mode under load --------------------------------------------------
load:	mov ax, 3
	int 0x10
.round:	call video
	call keyboard
	mov eax, [rounds]
	and eax, 0x3f
	jnz .next
	call strings
	call unreal_copy
	call protected16
	call virtual8086
.next:	dec dword [rounds]
	jnz .round
	mov si, .sums
	call say
	mov si, sums
	mov cx, 6
.sum:	lodsd
	call hex32
	call blank
	loop .sum
	call line
	mov eax, [0x46c]	; did the timer's interrupt come?
	test eax, eax
	mov si, .ticks
	jnz .say
	mov si, .still
.say:	jmp say
.sums:	db "sums ", 0
.ticks:	db "the timer ticks", 10, 0
.still:	db "the timer stands still", 10, 0

; Far calls to where the vectors point: as INT does, by hand
video:	mov ah, 3		; cursor position
	xor bx, bx
	pushf
	call far [0x10 * 4]
	add [sums], dx
	mov ah, 0xe
	mov al, [rounds]
	and al, 0x3f
	add al, 0x20
	mov bx, 7
	int 0x10
	ret

keyboard:
	mov ah, 1		; a key? there is none
	pushf
	call far [0x16 * 4]
	setz al
	movzx eax, al
	add [sums + 4], eax
	mov ah, 2
	int 0x16
	movzx eax, al
	add [sums + 4], eax
	ret

; To the DAC and back, a byte at a time
strings:
	mov dx, 0x3c8
	mov al, 0x40
	out dx, al
	inc dx
	mov si, gdt
	mov cx, 24
	rep outsb
	mov dx, 0x3c7
	mov al, 0x40
	out dx, al
	mov dx, 0x3c9
	mov di, BUFFER
	mov cx, 24
	rep insb
	mov si, BUFFER
	mov cx, 6
.sum:	lodsd
	add [sums + 8], eax
	loop .sum
	ret

; Above 1 MiB, through A20 and a limit of 4 GiB
unreal_copy:
	call unreal
	mov eax, 0x00200000
	mov ecx, 256
.write:	mov [fs:eax], ecx
	mov [fs:eax + 0x100000], ecx
	add eax, 4
	loop .write
	sub eax, 4
	mov edx, [fs:eax]
	add edx, [fs:eax + 0x100000 - 8]
	add [sums + 12], edx
	in al, 0x92
	and al, 2
	movzx eax, al
	add [sums + 12], eax
	mov ax, 0xffff		; FFFF:0010 is 1 MiB, not 0
	mov es, ax
	mov ebx, [0]
	not dword [es:0x10]
	cmp ebx, [0]
	sete al
	not dword [es:0x10]
	movzx eax, al
	add [sums + 12], eax
	xor ax, ax
	mov es, ax
	ret

; From 16-bit protected mode, with its segments
%macro real_mode 0
	mov eax, cr0
	and al, 0xfe
	mov cr0, eax
	jmp 0:%%out
%%out:	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
%endmacro

protected16:
	cli
	lgdt [gdtr]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	jmp CODE16:.in
.in:	mov ax, DATA16
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov si, gdt
	mov cx, 8
.sum:	lodsd
	add [sums + 16], eax
	loop .sum
	mov ax, cs
	add [sums + 16], ax
	real_mode
	sti
	ret

; A ring-3 task of virtual-8086 mode, left by its INT, which is a #GP
virtual8086:
	cli
	mov [real_sp], sp
	lgdt [gdtr]
	lidt [idtr]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	jmp CODE32:.enter
bits 32
.enter:	mov ax, FLAT
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov esp, 0x7a00
	mov byte [gdt + TASK + 5], 0x89	; not busy
	mov ax, TASK
	ltr ax
	push 0			; GS, FS, DS, ES
	push 0
	push 0
	push 0
	push 0			; SS, ESP
	push 0x7000
	push 0x00020002		; VM
	push 0			; CS, EIP
	push .task
	iretd
bits 16
.task:	mov ax, 0x1234
	mov cx, 100
.count:	add ax, cx
	push ax
	pop bx
	loop .count
	mov [sums + 20], bx
	int 0x21
	jmp $

bits 32
gp:	mov ax, DATA16
	mov ds, ax
	mov es, ax
	mov fs, ax
	mov gs, ax
	mov ss, ax
	inc word [sums + 22]
	jmp CODE16:.leave
bits 16
.leave:	real_mode
	mov sp, [real_sp]
	lidt [real_idtr]
	sti
	ret

align 8
idt:	times 13 dq 0
	dw gp, CODE32, 0x8e00, 0
idt_end:
idtr:	dw idt_end - idt - 1
	dd idt
real_idtr: dw 0x3ff
	dd 0

align 4
tss:	dd 0, 0x7a00, FLAT
	times 22 dd 0
	dw 0, 104
tss_end:
sums:	times 6 dd 0
real_sp: dw 0
