//! Attributes, and generalised requests: functions with callbacks in Fortran.

use alloc::boxed::Box;

use super::*;
use crate::api::answer;
use crate::api::attribute::{create, find, set};
use crate::error::Error;
use crate::handle::Comm;
use crate::runtime::state::{Language, Owner};

/// Predefined attributes are INTEGERs that C gives by address; their keys are below.
const LAST_PREDEFINED_KEY: c_int = 999;

fn report(function: &str, owner: Owner, result: Result<(), Error>) -> c_int {
    let comm = if let Owner::Comm(comm) = owner { comm } else { Comm::WORLD };
    answer(function, result.map_err(|error| error.on(comm)))
}

/// The value of an attribute in Fortran.
fn value(owner: Owner, key: c_int, language: Language, flag: &mut c_int) -> Result<isize, Error> {
    let found = find(owner, key, language)?;
    *flag = c_int::from(found.is_some());
    Ok(match (found, owner) {
        (None, _) => 0,
        // SAFETY: the library's own numbers.
        (Some(address), Owner::Comm(_)) if key <= LAST_PREDEFINED_KEY => unsafe {
            *(address as *const c_int) as isize
        },
        (Some(value), _) => value.cast_signed(),
    })
}

macro_rules! attributes {
    ($($create:ident $set:ident $get:ident $owner:ident $language:ident $number:ty;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $create(copy: *mut c_void, delete: *mut c_void, key: *mut c_int,
            extra: *const $number, ierror: *mut c_int) {
            let of_types = matches!(Owner::$owner(Handle(0)), Owner::Type(_));
            // SAFETY: the program gives the arguments that the Fortran binding asks for.
            unsafe {
                let extra = (*extra as isize).cast_unsigned();
                *key = create(of_types, Language::$language, copy as usize, delete as usize, extra);
                *ierror = SUCCESS;
            }
        }
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $set(owner: *const c_int, key: *const c_int, value: *const $number,
            ierror: *mut c_int) {
            // SAFETY: the program gives the arguments that the Fortran binding asks for.
            unsafe {
                let owner = Owner::$owner(Handle(*owner as usize));
                let value = (*value as isize).cast_unsigned();
                *ierror = report(stringify!($set), owner, set(owner, *key, value, Language::$language));
            }
        }
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $get(owner: *const c_int, key: *const c_int, target: *mut $number,
            flag: *mut c_int, ierror: *mut c_int) {
            // SAFETY: the program gives the arguments that the Fortran binding asks for.
            unsafe {
                let owner = Owner::$owner(Handle(*owner as usize));
                let found = value(owner, *key, Language::$language, &mut *flag);
                if let Ok(found) = found && *flag != 0 {
                    *target = found as $number;
                }
                *ierror = report(stringify!($get), owner, found.map(|_| ()));
            }
        }
    )* };
}

attributes! {
    mpi_comm_create_keyval_ mpi_comm_set_attr_ mpi_comm_get_attr_ Comm Address isize;
    mpi_keyval_create_ mpi_attr_put_ mpi_attr_get_ Comm Integer c_int;
    mpi_type_create_keyval_ mpi_type_set_attr_ mpi_type_get_attr_ Type Address isize;
}

macro_rules! predefined {
    ($number:ty: $($null_copy:ident $copy:ident $null_delete:ident;)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $null_copy(_owner: *mut c_int, _key: *mut c_int, _extra: *mut $number,
            _value: *mut $number, _new: *mut $number, flag: *mut c_int, ierror: *mut c_int) {
            // SAFETY: only the library and callbacks of the program call this, with these arguments.
            unsafe { (*flag, *ierror) = (0, SUCCESS) };
        }
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $copy(_owner: *mut c_int, _key: *mut c_int, _extra: *mut $number,
            value: *mut $number, new: *mut $number, flag: *mut c_int, ierror: *mut c_int) {
            // SAFETY: as above.
            unsafe { (*new, *flag, *ierror) = (*value, 1, SUCCESS) };
        }
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $null_delete(_owner: *mut c_int, _key: *mut c_int, _value: *mut $number,
            _extra: *mut $number, ierror: *mut c_int) {
            // SAFETY: as above.
            unsafe { *ierror = SUCCESS };
        }
    )* };
}

predefined! { isize:
    mpi_comm_null_copy_fn_ mpi_comm_dup_fn_ mpi_comm_null_delete_fn_;
    mpi_type_null_copy_fn_ mpi_type_dup_fn_ mpi_type_null_delete_fn_;
}
predefined! { c_int:
    mpi_null_copy_fn_ mpi_dup_fn_ mpi_null_delete_fn_;
}

type Query = unsafe extern "C" fn(*mut isize, *mut Status, *mut c_int);
type Free = unsafe extern "C" fn(*mut isize, *mut c_int);
type Cancel = unsafe extern "C" fn(*mut isize, *mut c_int, *mut c_int);

/// The functions of a generalised request in Fortran: what C passes as extra state. The program's own extra state stays
/// in its variable, as with other libraries: callbacks may change it.
struct Callbacks {
    query: Query,
    free: Free,
    cancel: Cancel,
    extra: *mut isize,
}

unsafe extern "C" fn query(callbacks: *mut Callbacks, status: *mut Status) -> c_int {
    let mut code = 0;
    // SAFETY: the request that has these callbacks exists.
    unsafe { ((*callbacks).query)((*callbacks).extra, status, &raw mut code) };
    code
}

unsafe extern "C" fn free(callbacks: *mut Callbacks) -> c_int {
    let mut code = 0;
    // SAFETY: called once, at the end of the request, which was made with a leaked box.
    unsafe {
        let callbacks = Box::from_raw(callbacks);
        (callbacks.free)(callbacks.extra, &raw mut code);
    }
    code
}

unsafe extern "C" fn cancel(callbacks: *mut Callbacks, mut complete: c_int) -> c_int {
    let mut code = 0;
    // SAFETY: the request that has these callbacks exists.
    unsafe { ((*callbacks).cancel)((*callbacks).extra, &raw mut complete, &raw mut code) };
    code
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn mpi_grequest_start_(
    query_fn: Query,
    free_fn: Free,
    cancel_fn: Cancel,
    extra: *mut isize,
    request: *mut c_int,
    ierror: *mut c_int,
) {
    // SAFETY: the program gives the arguments that the Fortran binding asks for.
    unsafe {
        let callbacks = Callbacks { query: query_fn, free: free_fn, cancel: cancel_fn, extra };
        let extra = Box::into_raw(Box::new(callbacks)) as usize;
        let (query, free, cancel) =
            (query as *const () as usize, free as *const () as usize, cancel as *const ());
        let mut request = Out::new(request);
        *ierror = api::generalized::Grequest_start(query, free, cancel as usize, extra, request.pointer());
    }
}
