//! The calls of `partita.h` for Fortran: numbers of units are INTEGER*8, times DOUBLE PRECISION.

use core::ffi::c_int;

use crate::api::units;
use crate::handle::Handle;

macro_rules! partita {
    ($($name:ident = $function:ident($($arg:ident: $type:ty => $value:expr),*);)*) => { $(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type,)* ierror: *mut c_int) {
            // SAFETY: the program gives the arguments that the binding in docs/mpi.md asks for.
            unsafe { *ierror = units::$function($($value),*) };
        }
    )* };
}

partita! {
    partita_define_units_ = partita_define_units(total: *const i64 => *total, first: *const i64 => *first,
        count: *const i64 => *count);
    partita_report_units_ = partita_report_units(number: *const i64 => *number, seconds: *const f64 => *seconds);
    partita_share_ = partita_share(comm: *const c_int => Handle(*comm as usize), first: *mut i64 => first,
        count: *mut i64 => count);
    partita_host_speed_ = partita_host_speed(relative: *mut f64 => relative);
    partita_safe_point_ = partita_safe_point();
    partita_not_before_ = partita_not_before(seconds: *const f64 => *seconds);
}
