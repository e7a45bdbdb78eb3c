//! The predefined reduction operations on the predefined types: `inout[i] = in[i] op inout[i]`.

#![allow(unsafe_code)]

use core::arch::asm;
use core::ptr;

/// What the elements of a predefined type are.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basic {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    /// The x87 `long double` in 16 bytes.
    F80,
    C32,
    C64,
    C80,
    Logical2,
    Logical4,
    Logical8,
    Bool,
    Byte,
    /// Can be sent but not computed with.
    Text,
    F32Int,
    F64Int,
    I64Int,
    I32Int,
    I16Int,
    F80Int,
    TwoF32,
    TwoF64,
}

impl Basic {
    /// The alignment that C gives elements of `bytes` bytes: that of a part, where there are parts.
    pub fn alignment(self, bytes: usize) -> usize {
        match self {
            Basic::C32 | Basic::I32Int | Basic::TwoF32 => 4,
            Basic::C64 | Basic::TwoF64 => 8,
            _ => bytes.clamp(1, 16),
        }
    }
}

/// A predefined operation.
#[allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    Sum,
    Min,
    Max,
    Prod,
    BitAnd,
    BitOr,
    BitXor,
    And,
    Or,
    Xor,
    MinLoc,
    MaxLoc,
    Replace,
    NoOp,
}

impl Builtin {
    /// The operation with this handle.
    pub fn from_handle(handle: usize) -> Option<Builtin> {
        Some(match handle {
            0x21 => Builtin::Sum,
            0x22 => Builtin::Min,
            0x23 => Builtin::Max,
            0x24 => Builtin::Prod,
            0x28 => Builtin::BitAnd,
            0x29 => Builtin::BitOr,
            0x2a => Builtin::BitXor,
            0x30 => Builtin::And,
            0x31 => Builtin::Or,
            0x32 => Builtin::Xor,
            0x38 => Builtin::MinLoc,
            0x39 => Builtin::MaxLoc,
            0x3c => Builtin::Replace,
            0x3d => Builtin::NoOp,
            _ => return None,
        })
    }
}

/// Two arrays of `count` elements.
#[derive(Clone, Copy)]
struct Arrays {
    input: *const u8,
    inout: *mut u8,
    count: usize,
}

impl Arrays {
    fn each<T: Copy>(self, operation: impl Fn(T, T) -> T) -> bool {
        let (input, inout) = (self.input.cast::<T>(), self.inout.cast::<T>());
        for i in 0..self.count {
            // SAFETY: `reduce` was promised `count` elements of the type that its caller named; they may be unaligned.
            unsafe {
                let value = operation(ptr::read_unaligned(input.add(i)), ptr::read_unaligned(inout.add(i)));
                ptr::write_unaligned(inout.add(i), value);
            }
        }
        true
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Pair<V, I> {
    value: V,
    index: I,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Complex<T> {
    re: T,
    im: T,
}

#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Extended([u8; 16]);

macro_rules! integer {
    ($type:ty, $op:expr, $arrays:expr) => {{
        let flag = |value: bool| <$type>::from(value);
        match $op {
            Builtin::Sum => $arrays.each(|a: $type, b| a.wrapping_add(b)),
            Builtin::Prod => $arrays.each(|a: $type, b| a.wrapping_mul(b)),
            Builtin::Min => $arrays.each(|a: $type, b| a.min(b)),
            Builtin::Max => $arrays.each(|a: $type, b| a.max(b)),
            Builtin::BitAnd => $arrays.each(|a: $type, b| a & b),
            Builtin::BitOr => $arrays.each(|a: $type, b| a | b),
            Builtin::BitXor => $arrays.each(|a: $type, b| a ^ b),
            Builtin::And => $arrays.each(|a: $type, b| flag(a != 0 && b != 0)),
            Builtin::Or => $arrays.each(|a: $type, b| flag(a != 0 || b != 0)),
            Builtin::Xor => $arrays.each(|a: $type, b| flag((a != 0) != (b != 0))),
            _ => false,
        }
    }};
}

macro_rules! float {
    ($type:ty, $op:expr, $arrays:expr) => {
        match $op {
            Builtin::Sum => $arrays.each(|a: $type, b| a + b),
            Builtin::Prod => $arrays.each(|a: $type, b| a * b),
            Builtin::Min => $arrays.each(|a: $type, b| if a < b { a } else { b }),
            Builtin::Max => $arrays.each(|a: $type, b| if a > b { a } else { b }),
            _ => false,
        }
    };
}

macro_rules! complex {
    ($type:ty, $op:expr, $arrays:expr) => {
        match $op {
            Builtin::Sum => $arrays
                .each(|a: Complex<$type>, b: Complex<$type>| Complex { re: a.re + b.re, im: a.im + b.im }),
            Builtin::Prod => $arrays.each(|a: Complex<$type>, b: Complex<$type>| Complex {
                re: a.re * b.re - a.im * b.im,
                im: a.re * b.im + a.im * b.re,
            }),
            _ => false,
        }
    };
}

macro_rules! pair {
    ($value:ty, $index:ty, $op:expr, $arrays:expr) => {{
        type P = Pair<$value, $index>;
        let lowest = |a: P, b: P| if b.index < a.index { b } else { a };
        match $op {
            Builtin::MinLoc => $arrays.each(|a: P, b: P| {
                if a.value < b.value {
                    a
                } else if b.value < a.value {
                    b
                } else {
                    lowest(a, b)
                }
            }),
            Builtin::MaxLoc => $arrays.each(|a: P, b: P| {
                if a.value > b.value {
                    a
                } else if b.value > a.value {
                    b
                } else {
                    lowest(a, b)
                }
            }),
            _ => false,
        }
    }};
}

macro_rules! x87 {
    ($instruction:literal, $a:expr, $b:expr) => {{
        let mut result = $b;
        // SAFETY: loads and stores ten bytes of 16-byte values; the register stack is empty before and after.
        unsafe {
            asm!("fld tbyte ptr [{a}]", "fld tbyte ptr [{b}]", $instruction, "fstp tbyte ptr [{b}]",
                a = in(reg) &raw const $a.0, b = in(reg) &raw mut result.0,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _);
        }
        result
    }};
}

fn add80(a: Extended, b: Extended) -> Extended {
    x87!("faddp st(1), st", a, b)
}

fn sub80(a: Extended, b: Extended) -> Extended {
    x87!("fsubp st(1), st", a, b)
}

fn mul80(a: Extended, b: Extended) -> Extended {
    x87!("fmulp st(1), st", a, b)
}

fn less80(a: Extended, b: Extended) -> bool {
    let below: u8;
    // SAFETY: as in `x87`.
    unsafe {
        asm!("fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", "fcomip st, st(1)", "setb {below}", "fstp st(0)",
            a = in(reg) &raw const a.0, b = in(reg) &raw const b.0, below = out(reg_byte) below,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _);
    }
    below != 0
}

fn reduce80(operation: Builtin, arrays: Arrays) -> bool {
    match operation {
        Builtin::Sum => arrays.each(add80),
        Builtin::Prod => arrays.each(mul80),
        Builtin::Min => arrays.each(|a, b| if less80(a, b) { a } else { b }),
        Builtin::Max => arrays.each(|a, b| if less80(b, a) { a } else { b }),
        _ => false,
    }
}

fn reduce_complex80(operation: Builtin, arrays: Arrays) -> bool {
    type C = Complex<Extended>;
    match operation {
        Builtin::Sum => arrays.each(|a: C, b: C| Complex { re: add80(a.re, b.re), im: add80(a.im, b.im) }),
        Builtin::Prod => arrays.each(|a: C, b: C| Complex {
            re: sub80(mul80(a.re, b.re), mul80(a.im, b.im)),
            im: add80(mul80(a.re, b.im), mul80(a.im, b.re)),
        }),
        _ => false,
    }
}

fn reduce_pair80(operation: Builtin, arrays: Arrays) -> bool {
    type P = Pair<Extended, i32>;
    let lowest = |a: P, b: P| if b.index < a.index { b } else { a };
    let pick = |first: bool, second: bool, a: P, b: P| match (first, second) {
        (true, _) => a,
        (_, true) => b,
        _ => lowest(a, b),
    };
    match operation {
        Builtin::MinLoc => {
            arrays.each(|a: P, b: P| pick(less80(a.value, b.value), less80(b.value, a.value), a, b))
        }
        Builtin::MaxLoc => {
            arrays.each(|a: P, b: P| pick(less80(b.value, a.value), less80(a.value, b.value), a, b))
        }
        _ => false,
    }
}

/// Only the logical operations of the integer type.
fn logical(operation: Builtin, reduce: impl Fn() -> bool) -> bool {
    matches!(operation, Builtin::And | Builtin::Or | Builtin::Xor) && reduce()
}

/// Only the bitwise operations of the integer type.
fn bitwise(operation: Builtin, reduce: impl Fn() -> bool) -> bool {
    matches!(operation, Builtin::BitAnd | Builtin::BitOr | Builtin::BitXor) && reduce()
}

/// Combines `count` elements; false when the operation is not defined for the type (ask with `count` 0).
///
/// # Safety
/// Both arrays must hold `count` elements of `basic`.
pub unsafe fn reduce(
    operation: Builtin,
    basic: Basic,
    input: *const u8,
    inout: *mut u8,
    count: usize,
) -> bool {
    let arrays = Arrays { input, inout, count };
    match basic {
        Basic::I8 => integer!(i8, operation, arrays),
        Basic::U8 => integer!(u8, operation, arrays),
        Basic::I16 => integer!(i16, operation, arrays),
        Basic::U16 => integer!(u16, operation, arrays),
        Basic::I32 => integer!(i32, operation, arrays),
        Basic::U32 => integer!(u32, operation, arrays),
        Basic::I64 => integer!(i64, operation, arrays),
        Basic::U64 => integer!(u64, operation, arrays),
        Basic::F32 => float!(f32, operation, arrays),
        Basic::F64 => float!(f64, operation, arrays),
        Basic::F80 => reduce80(operation, arrays),
        Basic::C32 => complex!(f32, operation, arrays),
        Basic::C64 => complex!(f64, operation, arrays),
        Basic::C80 => reduce_complex80(operation, arrays),
        Basic::Logical2 => logical(operation, || integer!(i16, operation, arrays)),
        Basic::Logical4 => logical(operation, || integer!(i32, operation, arrays)),
        Basic::Logical8 => logical(operation, || integer!(i64, operation, arrays)),
        Basic::Bool => logical(operation, || integer!(u8, operation, arrays)),
        Basic::Byte => bitwise(operation, || integer!(u8, operation, arrays)),
        Basic::Text => false,
        Basic::F32Int => pair!(f32, i32, operation, arrays),
        Basic::F64Int => pair!(f64, i32, operation, arrays),
        Basic::I64Int => pair!(i64, i32, operation, arrays),
        Basic::I32Int => pair!(i32, i32, operation, arrays),
        Basic::I16Int => pair!(i16, i32, operation, arrays),
        Basic::F80Int => reduce_pair80(operation, arrays),
        Basic::TwoF32 => pair!(f32, f32, operation, arrays),
        Basic::TwoF64 => pair!(f64, f64, operation, arrays),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T: Copy>(operation: Builtin, basic: Basic, a: T, b: T) -> T {
        let mut result = b;
        // SAFETY: one element each.
        assert!(unsafe { reduce(operation, basic, (&raw const a).cast(), (&raw mut result).cast(), 1) });
        result
    }

    /// 1.0 and 2.0 as x87 extended numbers.
    fn extended(exponent: u16) -> Extended {
        let mut bytes = [0; 16];
        bytes[7] = 0x80;
        bytes[8..10].copy_from_slice(&exponent.to_le_bytes());
        Extended(bytes)
    }

    #[test]
    fn long_doubles_are_computed_with_all_their_bits() {
        let (one, two) = (extended(0x3fff), extended(0x4000));
        assert_eq!(run(Builtin::Sum, Basic::F80, one, one).0[..10], two.0[..10]);
        assert_eq!(run(Builtin::Prod, Basic::F80, one, two).0[..10], two.0[..10]);
        assert_eq!(run(Builtin::Min, Basic::F80, two, one).0[..10], one.0[..10]);
        assert_eq!(run(Builtin::Max, Basic::F80, two, one).0[..10], two.0[..10]);
        assert_eq!(sub80(two, one).0[..10], one.0[..10]);
    }

    #[test]
    fn of_equal_values_the_lowest_index_wins() {
        let pair = |value, index| Pair::<f64, i32> { value, index };
        assert_eq!(run(Builtin::MinLoc, Basic::F64Int, pair(1.0, 7), pair(1.0, 3)).index, 3);
        assert_eq!(run(Builtin::MaxLoc, Basic::F64Int, pair(1.0, 7), pair(2.0, 9)).index, 9);
    }

    #[test]
    fn operations_are_refused_where_they_are_not_defined() {
        let refused = |operation, basic| {
            // SAFETY: no elements.
            !unsafe { reduce(operation, basic, ptr::null(), ptr::null_mut(), 0) }
        };
        assert!(refused(Builtin::BitAnd, Basic::F64));
        assert!(refused(Builtin::Sum, Basic::Byte));
        assert!(refused(Builtin::MinLoc, Basic::I32));
        assert!(refused(Builtin::Sum, Basic::Text));
        assert_eq!(run(Builtin::Or, Basic::Logical4, 0i32, 5), 1);
        assert_eq!(run(Builtin::Sum, Basic::I32, i32::MAX, 1), i32::MIN);
    }
}
