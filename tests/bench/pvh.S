/* The bench's guest for QEMU, from its 32-bit PVH entry (boot ABI of Xen: paging off, EBX = start info) to CPL 3, where
 * pvh.c runs. Every instruction at CPL 0 may be an emulated one (kvm_pvm), so there are few and plain ones. */
        .set    COM_PAGES, 2048
        .section .note.pvh, "a", @note
        .long   4, 8, 18                /* name, value, XEN_ELFNOTE_PHYS32_ENTRY */
        .asciz  "Xen"
        .quad   entry

        .code32
        .text
        .globl  entry
entry:
        cli
        cld
        movl    $stack_end, %esp
        movl    %ebx, %edi              /* kept for main */
        movb    $0xff, %al              /* no interrupts: both PICs masked */
        outb    %al, $0x21
        outb    %al, $0xa1

        /* 4 GiB, one to one, in pages of 2 MiB, for CPL 3 too. */
        movl    $(directories + 7), %eax
        movl    $pointers, %ebx
        movl    $4, %ecx
1:      movl    %eax, (%ebx)
        addl    $4096, %eax
        addl    $8, %ebx
        decl    %ecx
        jnz     1b
        movl    $(pointers + 7), root
        movl    $0x87, %eax             /* present, writable, user, large */
        movl    $directories, %ebx
        movl    $COM_PAGES, %ecx
2:      movl    %eax, (%ebx)
        addl    $0x200000, %eax
        addl    $8, %ebx
        decl    %ecx
        jnz     2b

        movl    %cr4, %eax
        orl     $0x220, %eax            /* PAE, OSFXSR */
        movl    %eax, %cr4
        movl    $root, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       /* EFER.LME */
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80000001, %eax
        movl    %eax, %cr0

        /* The TSS descriptor's base is known to the linker only in one piece. */
        movl    $tss, %eax
        movw    %ax, gdt_tss + 2
        shrl    $16, %eax
        movb    %al, gdt_tss + 4
        movb    %ah, gdt_tss + 7
        lgdt    gdt_register
        ljmp    $0x08, $long_mode

        .code64
long_mode:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $stack_end, %esp
        movl    $0x28, %eax
        ltr     %ax
        movl    %edi, %edi
        pushq   $(0x18 + 3)             /* SS, RSP, RFLAGS, CS, RIP of CPL 3 */
        pushq   $(stack_end - 4104)     /* as after a call: 8 below a multiple of 16 */
        pushq   $2
        pushq   $(0x20 + 3)
        pushq   $main
        iretq

        .data
        .balign 8
gdt:    .quad   0
        .quad   0x00af9a000000ffff      /* 08: code, CPL 0 */
        .quad   0x00cf92000000ffff      /* 10: data, CPL 0 */
        .quad   0x00cff2000000ffff      /* 18: data, CPL 3 */
        .quad   0x00affa000000ffff      /* 20: code, CPL 3 */
gdt_tss:
        .word   tss_end - tss - 1, 0    /* 28: TSS; its base is filled in */
        .byte   0, 0x89, 0, 0
        .quad   0
gdt_register:
        .word   gdt_register - gdt - 1
        .long   gdt
        .long   0

        /* A TSS whose I/O bitmap opens every port. */
        .balign 128
tss:    .long   0
        .quad   stack_end
        .fill   90, 1, 0
        .word   104                     /* where the bitmap begins */
        .fill   8192, 1, 0
        .byte   0xff
tss_end:

        .bss
        .balign 4096
root:   .skip   4096
pointers:
        .skip   4096
directories:
        .skip   4 * 4096
        .skip   16384
stack_end:
