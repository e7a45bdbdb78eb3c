//! Datatypes: which bytes of a buffer belong to an element.
//!
//! A type is kept flattened: the runs of bytes of one element in typemap order, adjacent runs joined. Anything that is not one
//! run from the start of the buffer is packed before it is sent and unpacked after it was received.

use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::arithmetic::Basic;
use crate::memory::Region;

/// A datatype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Type {
    /// Bytes of data in an element.
    pub bytes: usize,
    /// Lower bound in bytes.
    pub lower: isize,
    /// Distance between elements in bytes.
    pub extent: isize,
    /// Largest alignment of the basic types in it.
    pub alignment: usize,
    /// What it is made of, if that is one predefined type.
    pub basic: Option<Basic>,
    /// The bounds were set by a resize somewhere inside, and other parts do not move them.
    pub explicit_bounds: bool,
    /// The basic elements in typemap order: low byte of the predefined type's handle, and how many in a row.
    pub signature: Vec<(u8, usize)>,
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    offset: isize,
    bytes: usize,
}

/// One piece of a constructed type.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Elements in a row.
    pub count: usize,
    /// Where the first is, in bytes.
    pub offset: isize,
    /// Their type.
    pub of: &'a Type,
}

impl Type {
    /// A predefined type of `bytes` bytes in a row.
    pub fn plain(bytes: usize, basic: Basic) -> Type {
        Type {
            bytes,
            lower: 0,
            extent: bytes.cast_signed(),
            alignment: basic.alignment(bytes),
            basic: Some(basic),
            explicit_bounds: false,
            signature: Vec::new(),
            runs: alloc::vec![Run { offset: 0, bytes }],
        }
    }

    /// A predefined pair: a value of `value_bytes` bytes, then an `int` at `index_offset`.
    pub fn pair(value_bytes: usize, index_offset: usize, extent: usize, basic: Basic) -> Type {
        let mut pair = Type::plain(value_bytes, basic);
        pair.push(Run { offset: index_offset.cast_signed(), bytes: 4 });
        pair.bytes = value_bytes + 4;
        pair.extent = extent.cast_signed();
        pair.alignment = value_bytes.clamp(4, 16);
        pair
    }

    fn push(&mut self, run: Run) {
        match self.runs.last_mut() {
            Some(last) if last.offset + last.bytes.cast_signed() == run.offset => last.bytes += run.bytes,
            _ if run.bytes == 0 => {}
            _ => self.runs.push(run),
        }
    }

    /// A type made of parts in this order; `None` when a number is too large.
    pub fn assemble<'a>(parts: impl Iterator<Item = Part<'a>>) -> Option<Type> {
        let mut new = Type {
            bytes: 0,
            lower: 0,
            extent: 0,
            alignment: 1,
            basic: None,
            explicit_bounds: false,
            signature: Vec::new(),
            runs: Vec::new(),
        };
        let mut bounds: Option<(isize, isize)> = None;
        for part in parts.filter(|part| part.count > 0) {
            let of = part.of;
            let count = isize::try_from(part.count).ok()?;
            let last = part.offset.checked_add(of.extent.checked_mul(count - 1)?)?;
            let low = part.offset.min(last).checked_add(of.lower)?;
            let high = part.offset.max(last).checked_add(of.lower)?.checked_add(of.extent)?;
            let (lower, upper) = bounds.unwrap_or((low, high));
            // What has neither data nor bounds of its own is not in the typemap.
            let nothing = of.bytes == 0 && !of.explicit_bounds;
            if nothing {
                continue;
            }
            if new.explicit_bounds == of.explicit_bounds {
                bounds = Some((lower.min(low), upper.max(high)));
            } else if of.explicit_bounds {
                bounds = Some((low, high));
                new.explicit_bounds = true;
            }
            new.bytes = new.bytes.checked_add(of.bytes.checked_mul(part.count)?)?;
            new.alignment = new.alignment.max(of.alignment);
            new.append(&part);
        }
        let (lower, upper) = bounds.unwrap_or((0, 0));
        new.lower = lower;
        new.extent = upper.checked_sub(lower)?;
        Some(new)
    }

    fn sign(&mut self, kind: u8, count: usize) {
        match self.signature.last_mut() {
            Some(last) if last.0 == kind => last.1 += count,
            _ => self.signature.push((kind, count)),
        }
    }

    fn append(&mut self, part: &Part<'_>) {
        match part.of.signature[..] {
            [(kind, count)] => self.sign(kind, count * part.count),
            _ => (0..part.count)
                .flat_map(|_| &part.of.signature)
                .for_each(|&(kind, count)| self.sign(kind, count)),
        }
        if part.of.is_one_run() {
            self.push(Run { offset: part.offset, bytes: part.of.bytes * part.count });
            return;
        }
        for element in 0..part.count.cast_signed() {
            let base = part.offset + element * part.of.extent;
            for run in &part.of.runs {
                self.push(Run { offset: base + run.offset, bytes: run.bytes });
            }
        }
    }

    /// The same data with other bounds.
    pub fn resized(&self, lower: isize, extent: isize) -> Type {
        Type { lower, extent, basic: None, explicit_bounds: true, ..self.clone() }
    }

    /// How many basic elements the first `bytes` bytes of elements are; none if they end inside of one.
    pub fn basic_elements(&self, bytes: u64) -> Option<u64> {
        if self.bytes == 0 {
            return (bytes == 0).then_some(0);
        }
        let per_element: usize = self.signature.iter().map(|(_, count)| count).sum();
        let whole = bytes / self.bytes as u64;
        let mut rest = (bytes % self.bytes as u64) as usize;
        let mut number = whole * per_element as u64;
        for &(kind, count) in &self.signature {
            let size = size_of_kind(kind);
            if rest < size * count {
                number += (rest / size) as u64;
                return rest.is_multiple_of(size).then_some(number);
            }
            rest -= size * count;
            number += count as u64;
        }
        Some(number)
    }

    /// The bytes of the first `elements` basic elements.
    pub fn bytes_of_basic(&self, elements: u64) -> u64 {
        let per_element: usize = self.signature.iter().map(|(_, count)| count).sum();
        if per_element == 0 {
            return 0;
        }
        let whole = elements / per_element as u64;
        let mut rest = (elements % per_element as u64) as usize;
        let mut bytes = whole * self.bytes as u64;
        for &(kind, count) in &self.signature {
            let taken = rest.min(count);
            bytes += (taken * size_of_kind(kind)) as u64;
            rest -= taken;
        }
        bytes
    }

    /// Makes the extent a multiple of the alignment, as a C compiler does with a struct.
    pub fn padded(mut self) -> Type {
        if self.explicit_bounds {
            return self;
        }
        let alignment = self.alignment.cast_signed();
        let over = self.extent.rem_euclid(alignment);
        if over != 0 {
            self.extent += alignment - over;
        }
        self
    }

    /// Whether elements in a row are one run of bytes from the start of the buffer.
    pub fn is_one_run(&self) -> bool {
        match self.runs[..] {
            [run] => run.offset == 0 && self.lower == 0 && run.bytes.cast_signed() == self.extent,
            [] => self.extent == 0,
            _ => false,
        }
    }

    /// First byte and length of the memory that the data of an element touches.
    pub fn true_bounds(&self) -> (isize, isize) {
        let low = self.runs.iter().map(|run| run.offset).min().unwrap_or(0);
        let high = self.runs.iter().map(|run| run.offset + run.bytes.cast_signed()).max().unwrap_or(0);
        (low, high - low)
    }

    /// First byte and length of the memory that `count` elements touch or step over.
    pub fn span(&self, count: usize) -> (isize, usize) {
        if count == 0 {
            return (0, 0);
        }
        let (low, length) = self.true_bounds();
        let steps = self.extent * (count.cast_signed() - 1);
        (low + steps.min(0), (length + steps.abs()).cast_unsigned())
    }

    /// Copies the data of `count` elements at `buffer` to `packed`; stops when either ends. Returns the bytes copied.
    ///
    /// # Safety
    /// `buffer` must hold `count` elements of this type.
    pub unsafe fn pack(&self, buffer: *mut u8, count: usize, packed: Region) -> usize {
        // SAFETY: as promised by the caller.
        unsafe { self.copy(buffer, count, packed, |element, rest| element.copy_to(rest)) }
    }

    /// The reverse of [`Type::pack`].
    ///
    /// # Safety
    /// `buffer` must have room for `count` elements of this type.
    pub unsafe fn unpack(&self, buffer: *mut u8, count: usize, packed: Region) -> usize {
        // SAFETY: as promised by the caller.
        unsafe { self.copy(buffer, count, packed, |element, rest| rest.copy_to(element)) }
    }

    /// # Safety
    /// `buffer` must hold `count` elements.
    unsafe fn copy(
        &self,
        buffer: *mut u8,
        count: usize,
        packed: Region,
        step: impl Fn(Region, Region) -> usize,
    ) -> usize {
        if self.is_one_run() {
            // SAFETY: as promised by the caller.
            return step(unsafe { Region::new(buffer, count * self.bytes) }, packed);
        }
        let mut done = 0;
        for element in 0..count.cast_signed() {
            for run in &self.runs {
                // SAFETY: inside the element.
                let piece = unsafe {
                    Region::new(buffer.wrapping_offset(element * self.extent + run.offset), run.bytes)
                };
                done += step(piece, packed.part(done, run.bytes));
                if done >= packed.len() {
                    return done;
                }
            }
        }
        done
    }
}

/// The predefined types by the low byte of their handle (0x200 to 0x2ff).
pub fn predefined() -> Vec<Option<Rc<Type>>> {
    let mut types = alloc::vec![None; 256];
    for &(handle, bytes, basic) in PLAIN {
        let mut plain = Type::plain(bytes, basic);
        plain.signature = alloc::vec![match handle & 0xff {
            0x2b => (0x09, 2),
            0x30 => (0x1a, 2),
            0x31 => (0x1c, 2),
            0x32 => (0x19, 2),
            kind => (kind as u8, 1),
        }];
        types[handle & 0xff] = Some(Rc::new(plain));
    }
    for &(handle, value_bytes, index_offset, extent, basic) in PAIRS {
        let mut pair = Type::pair(value_bytes, index_offset, extent, basic);
        let value = match handle & 0xff {
            0x28 => 0x10,
            0x29 => 0x14,
            0x2a => 0x0a,
            0x2c => 0x08,
            _ => 0x20,
        };
        pair.signature = alloc::vec![(value, 1), (0x09, 1)];
        types[handle & 0xff] = Some(Rc::new(pair));
    }
    types
}

/// Bytes of a basic element.
pub fn size_of_kind(kind: u8) -> usize {
    PLAIN.iter().find(|plain| plain.0 & 0xff == usize::from(kind)).map_or(1, |plain| plain.1)
}

/// Handle, bytes, kind.
const PLAIN: &[(usize, usize, Basic)] = &[
    (0x201, 8, Basic::I64),      // AINT
    (0x202, 8, Basic::I64),      // COUNT
    (0x203, 8, Basic::I64),      // OFFSET
    (0x207, 1, Basic::Byte),     // PACKED
    (0x208, 2, Basic::I16),      // SHORT
    (0x209, 4, Basic::I32),      // INT
    (0x20a, 8, Basic::I64),      // LONG
    (0x20b, 8, Basic::I64),      // LONG_LONG
    (0x20c, 2, Basic::U16),      // UNSIGNED_SHORT
    (0x20d, 4, Basic::U32),      // UNSIGNED
    (0x20e, 8, Basic::U64),      // UNSIGNED_LONG
    (0x20f, 8, Basic::U64),      // UNSIGNED_LONG_LONG
    (0x210, 4, Basic::F32),      // FLOAT
    (0x212, 8, Basic::C32),      // C_FLOAT_COMPLEX
    (0x213, 8, Basic::C32),      // CXX_FLOAT_COMPLEX
    (0x214, 8, Basic::F64),      // DOUBLE
    (0x216, 16, Basic::C64),     // C_DOUBLE_COMPLEX
    (0x217, 16, Basic::C64),     // CXX_DOUBLE_COMPLEX
    (0x218, 4, Basic::Logical4), // LOGICAL
    (0x219, 4, Basic::I32),      // INTEGER
    (0x21a, 4, Basic::F32),      // REAL
    (0x21b, 8, Basic::C32),      // COMPLEX
    (0x21c, 8, Basic::F64),      // DOUBLE_PRECISION
    (0x21d, 16, Basic::C64),     // DOUBLE_COMPLEX
    (0x21e, 1, Basic::Text),     // CHARACTER
    (0x220, 16, Basic::F80),     // LONG_DOUBLE
    (0x224, 32, Basic::C80),     // C_LONG_DOUBLE_COMPLEX
    (0x225, 32, Basic::C80),     // CXX_LONG_DOUBLE_COMPLEX
    (0x22b, 8, Basic::I32Int),   // 2INT
    (0x230, 8, Basic::TwoF32),   // 2REAL
    (0x231, 16, Basic::TwoF64),  // 2DOUBLE_PRECISION
    (0x232, 8, Basic::I32Int),   // 2INTEGER
    (0x238, 1, Basic::Bool),     // C_BOOL
    (0x239, 1, Basic::Bool),     // CXX_BOOL
    (0x23c, 4, Basic::Text),     // WCHAR
    (0x240, 1, Basic::I8),       // INT8_T
    (0x241, 1, Basic::U8),       // UINT8_T
    (0x243, 1, Basic::I8),       // CHAR: computed with, too, as in MPICH
    (0x244, 1, Basic::I8),       // SIGNED_CHAR
    (0x245, 1, Basic::U8),       // UNSIGNED_CHAR
    (0x247, 1, Basic::Byte),     // BYTE
    (0x248, 2, Basic::I16),      // INT16_T
    (0x249, 2, Basic::U16),      // UINT16_T
    (0x250, 4, Basic::I32),      // INT32_T
    (0x251, 4, Basic::U32),      // UINT32_T
    (0x258, 8, Basic::I64),      // INT64_T
    (0x259, 8, Basic::U64),      // UINT64_T
    (0x2c0, 1, Basic::Bool),     // LOGICAL1
    (0x2c1, 1, Basic::I8),       // INTEGER1
    (0x2c8, 2, Basic::Logical2), // LOGICAL2
    (0x2c9, 2, Basic::I16),      // INTEGER2
    (0x2ca, 2, Basic::Text),     // REAL2
    (0x2d0, 4, Basic::Logical4), // LOGICAL4
    (0x2d1, 4, Basic::I32),      // INTEGER4
    (0x2d2, 4, Basic::F32),      // REAL4
    (0x2d3, 4, Basic::Text),     // COMPLEX4
    (0x2d8, 8, Basic::Logical8), // LOGICAL8
    (0x2d9, 8, Basic::I64),      // INTEGER8
    (0x2da, 8, Basic::F64),      // REAL8
    (0x2db, 8, Basic::C32),      // COMPLEX8
    (0x2e0, 16, Basic::Text),    // LOGICAL16
    (0x2e1, 16, Basic::Text),    // INTEGER16
    (0x2e2, 16, Basic::Text),    // REAL16
    (0x2e3, 16, Basic::C64),     // COMPLEX16
    (0x2eb, 32, Basic::Text),    // COMPLEX32
];

/// Handle, bytes of the value, offset of the index, extent, kind.
const PAIRS: &[(usize, usize, usize, usize, Basic)] = &[
    (0x228, 4, 4, 8, Basic::F32Int),    // FLOAT_INT
    (0x229, 8, 8, 16, Basic::F64Int),   // DOUBLE_INT
    (0x22a, 8, 8, 16, Basic::I64Int),   // LONG_INT
    (0x22c, 2, 4, 8, Basic::I16Int),    // SHORT_INT
    (0x22d, 16, 16, 32, Basic::F80Int), // LONG_DOUBLE_INT
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Scratch;

    fn int() -> Type {
        Type::plain(4, Basic::I32)
    }

    #[test]
    fn a_vector_packs_its_columns_and_unpacks_them_again() {
        let int = int();
        let column = Type::assemble((0..3).map(|row| Part { count: 1, offset: row * 16, of: &int })).unwrap();
        assert_eq!((column.bytes, column.extent), (12, 36));
        assert!(!column.is_one_run());
        let matrix: [i32; 12] = core::array::from_fn(|i| i as i32);
        let mut packed = Scratch::new(12);
        // SAFETY: the matrix holds one column from its start on.
        let bytes = unsafe { column.pack(matrix.as_ptr().cast_mut().cast(), 1, packed.region()) };
        assert_eq!(bytes, 12);
        let values: Vec<u8> = packed.region().to_vec();
        assert_eq!(values, [0, 0, 0, 0, 4, 0, 0, 0, 8, 0, 0, 0]);
        let mut back = [0i32; 12];
        // SAFETY: room for one column.
        unsafe { column.unpack(back.as_mut_ptr().cast(), 1, packed.region()) };
        assert_eq!((back[0], back[4], back[8], back[1]), (0, 4, 8, 0));
    }

    #[test]
    fn a_struct_is_padded_as_in_c() {
        let (int, double) = (int(), Type::plain(8, Basic::F64));
        let parts = [Part { count: 1, offset: 0, of: &double }, Part { count: 1, offset: 8, of: &int }];
        let pair = Type::assemble(parts.into_iter()).unwrap().padded();
        assert_eq!((pair.bytes, pair.extent), (12, 16));
        let dense = Type::assemble([Part { count: 5, offset: 0, of: &int }].into_iter()).unwrap();
        assert!(dense.is_one_run() && dense.bytes == 20);
        assert!(
            Type::assemble([Part { count: usize::MAX / 2, offset: 0, of: &dense }].into_iter()).is_none()
        );
    }
}
