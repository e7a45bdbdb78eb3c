//! Infos.

use alloc::vec::Vec;
use core::ffi::{CStr, c_char, c_int};

use super::{api, put, put_text};
use crate::error::{Error, class};
use crate::handle::Info;
use crate::info::{Entries, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::runtime::state::with_infos;

const NOT_AN_INFO: Error = Error::Invalid(class::INFO, "not an info");

/// What an info holds: a copy, empty for `MPI_INFO_NULL`.
pub fn entries(info: Info) -> Result<Entries, Error> {
    if info == Info::NULL || info == Info::ENV {
        return Ok(Entries::default());
    }
    with_infos(|infos| infos.get(info).cloned()).ok_or(NOT_AN_INFO)
}

/// The hints for a communicator that an info holds; others are ignored, as the standard asks.
pub fn hints(info: Info) -> Result<Entries, Error> {
    const KNOWN: [&[u8]; 4] = [
        b"mpi_assert_no_any_tag",
        b"mpi_assert_no_any_source",
        b"mpi_assert_exact_length",
        b"mpi_assert_allow_overtaking",
    ];
    let all = entries(info)?;
    let mut known = Entries::default();
    for key in KNOWN {
        if let Some(value) = all.get(key) {
            known.set(key, value);
        }
    }
    Ok(known)
}

/// As `entries`, for functions that need an info.
fn given(info: Info) -> Result<Entries, Error> {
    if info == Info::NULL { Err(NOT_AN_INFO) } else { entries(info) }
}

/// # Safety
/// The pointer is null or a C string.
unsafe fn text(pointer: *const c_char, bytes_max: usize, wrong: c_int) -> Result<Vec<u8>, Error> {
    if pointer.is_null() {
        return Err(Error::Invalid(wrong, "a string is null"));
    }
    // SAFETY: as promised by the caller.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    if bytes.is_empty() || bytes.len() >= bytes_max {
        return Err(Error::Invalid(wrong, "a string is empty or too long"));
    }
    Ok(bytes.to_vec())
}

/// # Safety
/// The pointer is null or a C string.
unsafe fn key(pointer: *const c_char) -> Result<Vec<u8>, Error> {
    // SAFETY: as promised by the caller.
    unsafe { text(pointer, KEY_BYTES_MAX, class::INFO_KEY) }
}

/// Makes an info.
pub fn add(entries: Entries) -> Info {
    with_infos(|infos| infos.insert(entries))
}

api! {
    /// An empty info.
    Info_create(info: *mut Info) {
        put(info, add(Entries::default()));
        Ok(())
    }

    /// What a program would find in MPI_INFO_ENV: nothing is known.
    Info_create_env(argc: c_int, argv: *mut *mut c_char, info: *mut Info) {
        let _ = (argc, argv);
        put(info, add(Entries::default()));
        Ok(())
    }

    /// A copy.
    Info_dup(info: Info, new: *mut Info) {
        put(new, add(given(info)?));
        Ok(())
    }

    /// Ends an info.
    Info_free(info: *mut Info) {
        with_infos(|infos| infos.remove(*info)).ok_or(NOT_AN_INFO)?;
        put(info, Info::NULL);
        Ok(())
    }

    /// Sets a value.
    Info_set(info: Info, name: *const c_char, value: *const c_char) {
        let (name, value) = (key(name)?, text(value, VALUE_BYTES_MAX, class::INFO_VALUE)?);
        with_infos(|infos| infos.get_mut(info).map(|entries| entries.set(&name, &value))).ok_or(NOT_AN_INFO)?;
        Ok(())
    }

    /// Forgets a key.
    Info_delete(info: Info, name: *const c_char) {
        let name = key(name)?;
        let there = with_infos(|infos| infos.get_mut(info).map(|entries| entries.remove(&name)));
        if there.ok_or(NOT_AN_INFO)? {
            return Ok(());
        }
        Err(Error::Invalid(class::INFO_NOKEY, "the info does not have the key").into())
    }

    /// A value, cut to `length` bytes.
    Info_get(info: Info, name: *const c_char, length: c_int, value: *mut c_char, flag: *mut c_int) {
        let (name, entries) = (key(name)?, given(info)?);
        let length = super::count(length)?;
        let found = entries.get(&name);
        put(flag, c_int::from(found.is_some()));
        if let Some(found) = found {
            put_text(value, &found[..found.len().min(length)], core::ptr::null_mut());
        }
        Ok(())
    }

    /// A value, cut to the buffer, whose size becomes the one needed.
    Info_get_string(info: Info, name: *const c_char, length: *mut c_int, value: *mut c_char, flag: *mut c_int) {
        let (name, entries) = (key(name)?, given(info)?);
        let room = super::count(*length)?;
        let found = entries.get(&name);
        put(flag, c_int::from(found.is_some()));
        if let Some(found) = found {
            if room > 0 {
                put_text(value, &found[..found.len().min(room - 1)], core::ptr::null_mut());
            }
            put(length, found.len() as c_int + 1);
        }
        Ok(())
    }

    /// The length of a value.
    Info_get_valuelen(info: Info, name: *const c_char, length: *mut c_int, flag: *mut c_int) {
        let (name, entries) = (key(name)?, given(info)?);
        let found = entries.get(&name);
        put(flag, c_int::from(found.is_some()));
        if let Some(found) = found {
            put(length, found.len() as c_int);
        }
        Ok(())
    }

    /// Number of keys.
    Info_get_nkeys(info: Info, number: *mut c_int) {
        put(number, given(info)?.len() as c_int);
        Ok(())
    }

    /// A key by its number.
    Info_get_nthkey(info: Info, number: c_int, name: *mut c_char) {
        let entries = given(info)?;
        let found = usize::try_from(number).ok().and_then(|number| entries.key(number));
        let found = found.ok_or(Error::Invalid(class::ARG, "the info does not have so many keys"))?;
        put_text(name, found, core::ptr::null_mut());
        Ok(())
    }
}
