//! Error classes, codes and strings of the program.

use core::ffi::{CStr, c_char, c_int};

use super::{api, put};
use crate::error::{Error, class};
use crate::runtime::state::{ErrorCodes, Phase, phase, with};

/// `MPI_MAX_ERROR_STRING` of the ABI, with the NUL, in bytes.
const STRING_BYTES_MAX: usize = 512;
const NOT_A_CODE: Error = Error::Invalid(class::ARG, "not an error code of the program");

/// The class and the text of a code that the program has made.
pub fn made_by_program(code: c_int) -> Option<(c_int, alloc::vec::Vec<u8>)> {
    if phase() != Phase::Running {
        return None;
    }
    let place = usize::try_from(code.checked_sub(ErrorCodes::FIRST)?).ok()?;
    with(|mpi| mpi.error_codes.codes.get(place).cloned().flatten())
}

/// Adds a code; its class is itself if none is given.
fn add(of_class: Option<c_int>) -> c_int {
    with(|mpi| {
        let code = ErrorCodes::FIRST + mpi.error_codes.codes.len() as c_int;
        mpi.error_codes.codes.push(Some((of_class.unwrap_or(code), alloc::vec::Vec::new())));
        *mpi.error_codes.last_used = code;
        code
    })
}

fn is_class(code: c_int) -> bool {
    (0..=62).contains(&code) || made_by_program(code).is_some_and(|(class, _)| class == code)
}

fn remove(code: c_int, whole_class: bool) -> Result<(), Error> {
    let (class, _) = made_by_program(code).ok_or(NOT_A_CODE)?;
    if whole_class != (class == code) {
        return Err(NOT_A_CODE);
    }
    with(|mpi| mpi.error_codes.codes[(code - ErrorCodes::FIRST) as usize] = None);
    Ok(())
}

fn set_text(code: c_int, text: &[u8]) -> Result<(), Error> {
    made_by_program(code).ok_or(NOT_A_CODE)?;
    let text = text[..text.len().min(STRING_BYTES_MAX - 1)].to_vec();
    with(|mpi| {
        if let Some(entry) = &mut mpi.error_codes.codes[(code - ErrorCodes::FIRST) as usize] {
            entry.1 = text;
        }
    });
    Ok(())
}

api! {
    /// Makes an error class.
    Add_error_class(new: *mut c_int) {
        put(new, add(None));
        Ok(())
    }

    /// Makes an error code of a class.
    Add_error_code(of_class: c_int, new: *mut c_int) {
        if !is_class(of_class) {
            return Err(Error::Invalid(class::ARG, "not an error class").into());
        }
        put(new, add(Some(of_class)));
        Ok(())
    }

    /// Sets the text of an error class or code of the program.
    Add_error_string(code: c_int, text: *const c_char) {
        Ok(set_text(code, CStr::from_ptr(text).to_bytes())?)
    }

    /// Takes an error class back.
    Remove_error_class(code: c_int) {
        Ok(remove(code, true)?)
    }

    /// Takes an error code back.
    Remove_error_code(code: c_int) {
        Ok(remove(code, false)?)
    }

    /// Takes a text back.
    Remove_error_string(code: c_int) {
        Ok(set_text(code, b"")?)
    }
}
