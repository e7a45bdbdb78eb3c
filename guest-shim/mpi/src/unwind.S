# The prebuilt core and alloc refer to unwinding, which cannot happen in this library: a panic ends the process. These
# two names stay local to the library's object, so programs that do unwind have their own.
    .globl rust_eh_personality, _Unwind_Resume
    .text
rust_eh_personality:
_Unwind_Resume:
    ud2
    .section .note.GNU-stack,"",@progbits
