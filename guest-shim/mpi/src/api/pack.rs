//! Packing, for messages of this library and in the format of the standard (external32).

use core::ffi::{CStr, c_char, c_int, c_void};

use super::datatype::{of, to_int};
use super::{api, count, put};
use crate::error::{Error, class};
use crate::external;
use crate::handle::{Comm, Datatype};
use crate::memory::{Region, Scratch};
use crate::runtime::schedule::View;

fn check(representation: *const c_char) -> Result<(), Error> {
    // SAFETY: the program gives a C string.
    match unsafe { CStr::from_ptr(representation) }.to_bytes() {
        b"external32" => Ok(()),
        _ => Err(Error::Invalid(class::UNSUPPORTED_DATAREP, "the representation is not external32")),
    }
}

/// Where something begins, if `bytes` bytes are left from there on.
fn place(position: isize, size: isize, bytes: usize) -> Result<usize, Error> {
    let fits = usize::try_from(position).ok().filter(|at| {
        usize::try_from(size).is_ok_and(|size| at.checked_add(bytes).is_some_and(|end| end <= size))
    });
    fits.ok_or(Error::Invalid(class::ARG, "the buffer is too small"))
}

api! {
    /// Puts data in a row.
    Pack(input: *const c_void, number: c_int, datatype: Datatype, output: *mut c_void, size: c_int,
        position: *mut c_int, comm: Comm) on comm {
        let view = View { buffer: input.cast_mut().cast(), count: count(number)?, of: of(datatype)? };
        let (at, size) = (count(*position)?, count(size)?);
        if at + view.bytes() > size {
            return Err(Error::Invalid(class::ARG, "the buffer is too small to pack into"));
        }
        view.of.pack(view.buffer, view.count, Region::new(output.cast::<u8>().add(at), view.bytes()));
        put(position, (at + view.bytes()) as c_int);
        Ok(())
    }

    /// The reverse of Pack.
    Unpack(input: *const c_void, size: c_int, position: *mut c_int, output: *mut c_void, number: c_int,
        datatype: Datatype, comm: Comm) on comm {
        let view = View { buffer: output.cast(), count: count(number)?, of: of(datatype)? };
        let (at, size) = (count(*position)?, count(size)?);
        if at + view.bytes() > size {
            return Err(Error::Invalid(class::ARG, "there is not so much to unpack"));
        }
        let packed = Region::new(input.cast_mut().cast::<u8>().add(at), view.bytes());
        view.of.unpack(view.buffer, view.count, packed);
        put(position, (at + view.bytes()) as c_int);
        Ok(())
    }

    /// Bytes that Pack needs.
    Pack_size(number: c_int, datatype: Datatype, comm: Comm, size: *mut c_int) on comm {
        put(size, to_int((count(number)? * of(datatype)?.bytes).cast_signed()));
        Ok(())
    }

    /// Puts data in a row in the format of the standard.
    Pack_external(representation: *const c_char, input: *const c_void, number: c_int, datatype: Datatype,
        output: *mut c_void, size: isize, position: *mut isize) {
        check(representation)?;
        let view = View { buffer: input.cast_mut().cast(), count: count(number)?, of: of(datatype)? };
        let bytes = external::size(&view.of.signature) * view.count;
        let at = place(*position, size, bytes)?;
        let mut native = Scratch::new(view.bytes());
        view.of.pack(view.buffer, view.count, native.region());
        let data = external::encode(&view.of.signature, &native.region().to_vec());
        core::ptr::copy_nonoverlapping(data.as_ptr(), output.cast::<u8>().add(at), data.len().min(bytes));
        put(position, (at + bytes).cast_signed());
        Ok(())
    }

    /// The reverse of Pack_external.
    Unpack_external(representation: *const c_char, input: *const c_void, size: isize, position: *mut isize,
        output: *mut c_void, number: c_int, datatype: Datatype) {
        check(representation)?;
        let view = View { buffer: output.cast(), count: count(number)?, of: of(datatype)? };
        let bytes = external::size(&view.of.signature) * view.count;
        let at = place(*position, size, bytes)?;
        let data = Region::new(input.cast_mut().cast::<u8>().add(at), bytes).to_vec();
        let mut native = external::decode(&view.of.signature, &data);
        let packed = Region::new(native.as_mut_ptr(), native.len());
        view.of.unpack(view.buffer, view.count, packed);
        put(position, (at + bytes).cast_signed());
        Ok(())
    }

    /// Bytes that Pack_external needs.
    Pack_external_size(representation: *const c_char, number: c_int, datatype: Datatype, size: *mut isize) {
        check(representation)?;
        put(size, (external::size(&of(datatype)?.signature) * count(number)?).cast_signed());
        Ok(())
    }
}
