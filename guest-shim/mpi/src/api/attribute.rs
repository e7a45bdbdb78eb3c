//! Attributes of communicators and datatypes.
//!
//! Values set in one language can be read in the other, as section "Attributes" of the standard's language bindings asks: a
//! pointer set by C is an INTEGER of address size in Fortran, and C gets the address of what Fortran has set.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::{c_int, c_void};

use super::{api, put};
use crate::error::{Error, class};
use crate::handle::{Comm, Datatype};
use crate::runtime::state::{Attribute, ErrorCodes, Keyval, Language, Mpi, Owner, with};

type CopyFunction = unsafe extern "C" fn(usize, c_int, usize, usize, *mut usize, *mut c_int) -> c_int;
type DeleteFunction = unsafe extern "C" fn(usize, c_int, usize, usize) -> c_int;
/// Of Fortran: everything by reference; the numbers are INTEGERs of either size.
type FortranCopy =
    unsafe extern "C" fn(*mut c_int, *mut c_int, *mut isize, *mut isize, *mut isize, *mut c_int, *mut c_int);
type FortranDelete = unsafe extern "C" fn(*mut c_int, *mut c_int, *mut isize, *mut isize, *mut c_int);

/// `MPI_COMM_DUP_FN` and `MPI_TYPE_DUP_FN`.
const DUP_FN: usize = 1;
/// First key of the program.
const FIRST_KEY: c_int = 1000;
/// `MPI_LASTUSEDCODE`.
const LAST_USED_CODE: c_int = 506;

const NOT_A_KEY: Error = Error::Invalid(class::KEYVAL, "not an attribute key");

/// Values of the predefined attributes, which programs get by address.
struct Predefined {
    key: c_int,
    value: c_int,
}

/// MPI_TAG_UB, MPI_IO, MPI_HOST, MPI_WTIME_IS_GLOBAL, MPI_APPNUM.
static PREDEFINED: [Predefined; 5] = [
    Predefined { key: 501, value: c_int::MAX },
    Predefined { key: 502, value: -1 },
    Predefined { key: 503, value: -3 },
    Predefined { key: 504, value: 0 },
    Predefined { key: 505, value: 0 },
];

impl Owner {
    fn number(self) -> usize {
        match self {
            Owner::Comm(comm) => comm.0,
            Owner::Type(datatype) => datatype.0,
        }
    }

    fn attributes(self, mpi: &mut Mpi) -> Result<&mut Vec<Attribute>, Error> {
        match self {
            Owner::Comm(comm) => Ok(&mut mpi.comm_mut(comm)?.attributes),
            Owner::Type(datatype) => {
                mpi.datatype(datatype)?;
                Ok(&mut mpi.type_extras.entry(datatype.0).or_default().attributes)
            }
        }
    }
}

impl Attribute {
    /// An attribute with a place for its value if C could not find it otherwise.
    fn new(key: c_int, value: usize, language: Language) -> Attribute {
        let place = if language == Language::C { 0 } else { Box::into_raw(Box::new(value)) as usize };
        Attribute { key, value, language, place }
    }

    /// The value as the program gets it.
    pub fn seen_from(&self, language: Language) -> usize {
        if language == Language::C && self.language != Language::C { self.place } else { self.value }
    }

    fn forget(self) {
        if self.place != 0 {
            // SAFETY: made by `new`, and this attribute is the only one with this place.
            drop(unsafe { Box::from_raw(self.place as *mut usize) });
        }
    }
}

fn keyval(owner: Owner, key: c_int) -> Result<Keyval, Error> {
    let of_types = matches!(owner, Owner::Type(_));
    let fits = |keyval: &Keyval| keyval.number == key && keyval.of_types == of_types;
    with(|mpi| mpi.keyvals.iter().copied().find(fits)).ok_or(NOT_A_KEY)
}

/// Copies an attribute to a duplicate as its key asks.
pub fn copy(from: Owner, to: Owner, old: Attribute) -> Result<(), Error> {
    let keyval = keyval(from, old.key)?;
    let (mut new, mut flag) = (old.seen_from(keyval.language), 0);
    let mut language = keyval.language;
    let (mut key, mut handle) = (old.key, from.number() as c_int);
    let code = match (keyval.copy, keyval.language) {
        (0, _) => 0,
        (DUP_FN, _) => {
            (new, flag, language) = (old.value, 1, old.language);
            0
        }
        // SAFETY: the address was given to MPI as such a function.
        (address, Language::C) => unsafe {
            let function: CopyFunction = core::mem::transmute(address);
            function(from.number(), key, keyval.extra, new, &raw mut new, &raw mut flag)
        },
        // SAFETY: as above.
        (address, _) => unsafe {
            let function: FortranCopy = core::mem::transmute(address);
            let (mut extra, mut value, mut out) = (keyval.extra.cast_signed(), new.cast_signed(), 0isize);
            let mut code = 0;
            function(
                &raw mut handle,
                &raw mut key,
                &raw mut extra,
                &raw mut value,
                &raw mut out,
                &raw mut flag,
                &raw mut code,
            );
            new = narrow(out, language).cast_unsigned();
            code
        },
    };
    if code != class::SUCCESS {
        return Err(Error::Code(code));
    }
    if flag != 0 {
        let attribute = Attribute::new(old.key, new, language);
        with(|mpi| to.attributes(mpi).map(|attributes| attributes.push(attribute)))?;
    }
    Ok(())
}

/// What is left of a number in an INTEGER of Fortran.
fn narrow(value: isize, language: Language) -> isize {
    if language == Language::Integer { value as c_int as isize } else { value }
}

/// Deletes an attribute; it stays when its function says so.
pub fn delete(owner: Owner, key: c_int) -> Result<(), Error> {
    let keyval = keyval(owner, key)?;
    let find = |attributes: &Vec<Attribute>| attributes.iter().position(|of| of.key == key);
    let old = with(|mpi| owner.attributes(mpi).map(|list| find(list).map(|at| list[at])))?;
    let Some(old) = old else { return Ok(()) };
    let value = old.seen_from(keyval.language);
    let (mut number, mut handle) = (key, owner.number() as c_int);
    let code = match (keyval.delete, keyval.language) {
        (0, _) => 0,
        // SAFETY: the address was given to MPI as such a function.
        (address, Language::C) => unsafe {
            let function: DeleteFunction = core::mem::transmute(address);
            function(owner.number(), key, value, keyval.extra)
        },
        // SAFETY: as above.
        (address, _) => unsafe {
            let function: FortranDelete = core::mem::transmute(address);
            let (mut extra, mut value) = (keyval.extra.cast_signed(), value.cast_signed());
            let mut code = 0;
            function(&raw mut handle, &raw mut number, &raw mut value, &raw mut extra, &raw mut code);
            code
        },
    };
    if code != class::SUCCESS {
        return Err(Error::Code(code));
    }
    with(|mpi| owner.attributes(mpi).map(|list| find(list).map(|at| list.remove(at))))?
        .into_iter()
        .for_each(Attribute::forget);
    Ok(())
}

/// Deletes all attributes of what ends, the youngest first.
pub fn delete_all(owner: Owner) -> Result<(), Error> {
    while let Some(last) = with(|mpi| owner.attributes(mpi).map(|list| list.last().copied()))? {
        delete(owner, last.key)?;
    }
    Ok(())
}

/// Makes a key.
pub fn create(of_types: bool, language: Language, copy: usize, delete: usize, extra: usize) -> c_int {
    with(|mpi| {
        let number = FIRST_KEY + mpi.keyvals.len() as c_int;
        mpi.keyvals.push(Keyval { number, of_types, language, copy, delete, extra, freed: false });
        number
    })
}

fn free(key: c_int, of_types: bool) -> Result<(), Error> {
    with(|mpi| {
        // As long as an attribute has it, a key can be freed again through copies of its handle: functions that delete do.
        let fits = |keyval: &&mut Keyval| keyval.number == key && keyval.of_types == of_types;
        mpi.keyvals.iter_mut().find(fits).ok_or(NOT_A_KEY)?.freed = true;
        Ok(())
    })
}

/// Sets an attribute.
pub fn set(owner: Owner, key: c_int, value: usize, language: Language) -> Result<(), Error> {
    if keyval(owner, key)?.freed {
        return Err(NOT_A_KEY);
    }
    delete(owner, key)?;
    let attribute = Attribute::new(key, value, language);
    with(|mpi| owner.attributes(mpi).map(|attributes| attributes.push(attribute)))
}

/// Finds an attribute as a language sees it; predefined ones by their address.
pub fn find(owner: Owner, key: c_int, language: Language) -> Result<Option<usize>, Error> {
    if matches!(owner, Owner::Comm(_)) && key < FIRST_KEY {
        with(|mpi| owner.attributes(mpi).map(|_| ()))?;
        if key == LAST_USED_CODE {
            return Ok(Some(with(|mpi: &mut Mpi| {
                let codes: &ErrorCodes = &mpi.error_codes;
                &raw const *codes.last_used as usize
            })));
        }
        let found = PREDEFINED.iter().find(|attribute| attribute.key == key);
        if found.is_none() && !(501..=507).contains(&key) {
            return Err(NOT_A_KEY);
        }
        return Ok(found.map(|attribute| &raw const attribute.value as usize));
    }
    if keyval(owner, key)?.freed {
        return Err(NOT_A_KEY);
    }
    let found = with(|mpi| owner.attributes(mpi).map(|list| list.iter().find(|of| of.key == key).copied()))?;
    Ok(found.map(|attribute| attribute.seen_from(language)))
}

/// # Safety
/// The pointers are valid.
unsafe fn get(owner: Owner, key: c_int, value: *mut c_void, flag: *mut c_int) -> Result<(), Error> {
    let found = find(owner, key, Language::C)?;
    // SAFETY: as promised by the caller.
    unsafe {
        put(flag, c_int::from(found.is_some()));
        if let Some(found) = found {
            put(value.cast::<usize>(), found);
        }
    }
    Ok(())
}

api! {
    /// Makes an attribute key for communicators.
    Comm_create_keyval(copy: usize, delete: usize, key: *mut c_int, extra: *mut c_void) {
        put(key, create(false, Language::C, copy, delete, extra as usize));
        Ok(())
    }

    /// The MPI-1 name of Comm_create_keyval.
    Keyval_create(copy: usize, delete: usize, key: *mut c_int, extra: *mut c_void) {
        put(key, create(false, Language::C, copy, delete, extra as usize));
        Ok(())
    }

    /// Makes an attribute key for datatypes.
    Type_create_keyval(copy: usize, delete: usize, key: *mut c_int, extra: *mut c_void) {
        put(key, create(true, Language::C, copy, delete, extra as usize));
        Ok(())
    }

    /// Ends an attribute key.
    Comm_free_keyval(key: *mut c_int) {
        free(*key, false)?;
        put(key, 0);
        Ok(())
    }

    /// The MPI-1 name of Comm_free_keyval.
    Keyval_free(key: *mut c_int) {
        free(*key, false)?;
        put(key, 0);
        Ok(())
    }

    /// Ends an attribute key of datatypes.
    Type_free_keyval(key: *mut c_int) {
        free(*key, true)?;
        put(key, 0);
        Ok(())
    }

    /// Sets an attribute.
    Comm_set_attr(comm: Comm, key: c_int, value: *mut c_void) on comm {
        set(Owner::Comm(comm), key, value as usize, Language::C)
    }

    /// The MPI-1 name of Comm_set_attr.
    Attr_put(comm: Comm, key: c_int, value: *mut c_void) on comm {
        set(Owner::Comm(comm), key, value as usize, Language::C)
    }

    /// Sets an attribute of a datatype.
    Type_set_attr(datatype: Datatype, key: c_int, value: *mut c_void) {
        Ok(set(Owner::Type(datatype), key, value as usize, Language::C)?)
    }

    /// An attribute.
    Comm_get_attr(comm: Comm, key: c_int, value: *mut c_void, flag: *mut c_int) on comm {
        get(Owner::Comm(comm), key, value, flag)
    }

    /// The MPI-1 name of Comm_get_attr.
    Attr_get(comm: Comm, key: c_int, value: *mut c_void, flag: *mut c_int) on comm {
        get(Owner::Comm(comm), key, value, flag)
    }

    /// An attribute of a datatype.
    Type_get_attr(datatype: Datatype, key: c_int, value: *mut c_void, flag: *mut c_int) {
        Ok(get(Owner::Type(datatype), key, value, flag)?)
    }

    /// Deletes an attribute.
    Comm_delete_attr(comm: Comm, key: c_int) on comm {
        delete(Owner::Comm(comm), key)
    }

    /// The MPI-1 name of Comm_delete_attr.
    Attr_delete(comm: Comm, key: c_int) on comm {
        delete(Owner::Comm(comm), key)
    }

    /// Deletes an attribute of a datatype.
    Type_delete_attr(datatype: Datatype, key: c_int) {
        Ok(delete(Owner::Type(datatype), key)?)
    }
}
