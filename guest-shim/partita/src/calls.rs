//! The functions of `partita.h`, by their addresses: zero where the MPI library is another one, so that a program links with any.
//!
//! Weak references are what `partita.h` does about that; Rust has none yet (`linkage` is unstable), so the assembler makes them.

use std::ffi::{c_int, c_ulonglong, c_void};

use crate::error::Error;

/// `MPI_Comm` of the standard ABI: a handle in a pointer.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
struct Comm(*mut c_void);

/// `MPI_COMM_WORLD` of the standard ABI, which is that of the only library that has `partita_share`.
const WORLD: Comm = Comm(std::ptr::without_provenance_mut(0x101));

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Addresses of the functions, in the order of the table below.
        #[repr(C)]
        #[allow(non_snake_case)]
        struct Calls { $($(#[$doc])* $name: Option<unsafe extern "C" fn($($argument),*) $(-> $result)?>,)* }

        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        std::arch::global_asm!(
            ".pushsection .data.rel.ro.partita_calls,\"aw\",@progbits",
            ".balign 8",
            ".globl partita_rust_calls",
            ".hidden partita_rust_calls",
            "partita_rust_calls:",
            $(concat!(".weak ", stringify!($name)), concat!(".quad ", stringify!($name)),)*
            ".popsection",
        );

        /// Elsewhere there is no Partita.
        #[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
        #[allow(non_upper_case_globals)]
        static partita_rust_calls: Calls = Calls { $($name: None,)* };

        /// Name, arguments and result of every function.
        #[cfg(test)]
        const DECLARED: &[(&str, &[&str], &str)] =
            &[$((stringify!($name), &[$(stringify!($argument)),*], concat!($(stringify!($result))?)),)*];
    };
}

// Checked against mpi.h and partita.h by the test below.
functions! {
    MPI_Initialized(*mut c_int) -> c_int;
    MPI_Finalized(*mut c_int) -> c_int;
    MPI_Is_thread_main(*mut c_int) -> c_int;
    partita_report_progress(c_ulonglong);
    partita_define_units(i64, i64, i64) -> c_int;
    partita_report_units(i64, f64) -> c_int;
    partita_share(Comm, *mut i64, *mut i64) -> c_int;
    partita_host_speed(*mut f64) -> c_int;
    partita_safe_point() -> c_int;
    partita_not_before(f64) -> c_int;
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
unsafe extern "C" {
    // SAFETY: defined above, an array of addresses that only the linker writes; `None` is the address zero.
    safe static partita_rust_calls: Calls;
}

/// Whether MPI runs, and this is its thread.
pub fn check() -> Result<(), Error> {
    let calls = &partita_rust_calls;
    let ask = |function: Option<unsafe extern "C" fn(*mut c_int) -> c_int>| {
        let mut flag = 0;
        // SAFETY: MPI allows the first two at any time, the third while it runs; each writes one int.
        function.is_some_and(|function| unsafe { function(&raw mut flag) } == 0) && flag != 0
    };
    if !ask(calls.MPI_Initialized) || ask(calls.MPI_Finalized) {
        return Err(Error::NotRunning);
    }
    if ask(calls.MPI_Is_thread_main) { Ok(()) } else { Err(Error::OtherThread) }
}

/// Whether the MPI library is Partita's.
pub fn are_present() -> bool {
    partita_rust_calls.partita_share.is_some()
}

/// Makes a call where it exists, while MPI runs.
macro_rules! call {
    ($name:ident($($argument:expr),*)) => {{
        check()?;
        // SAFETY: MPI runs, on this thread, as `partita.h` asks; pointers are to variables of the caller.
        match partita_rust_calls.$name.map(|function| unsafe { function($($argument),*) }) {
            None | Some(0) => Ok(()),
            Some(class) => Err(Error::Refused { call: stringify!($name), class }),
        }
    }};
}

pub fn report_progress(units: u64) -> Result<(), Error> {
    check()?;
    if let Some(function) = partita_rust_calls.partita_report_progress {
        // SAFETY: MPI runs, on this thread.
        unsafe { function(units) };
    }
    Ok(())
}

pub fn define_units(total: i64, first: i64, count: i64) -> Result<(), Error> {
    call!(partita_define_units(total, first, count))
}

/// `seconds` is elapsed time.
pub fn report_units(units: i64, seconds: f64) -> Result<(), Error> {
    call!(partita_report_units(units, seconds))
}

/// First unit and number of units of this rank from now on; what is given where nobody shares out.
pub fn share(mut first: i64, mut count: i64) -> Result<(i64, i64), Error> {
    call!(partita_share(WORLD, &raw mut first, &raw mut count)).map(|()| (first, count))
}

pub fn host_speed() -> Result<f64, Error> {
    let mut relative = 1.0;
    call!(partita_host_speed(&raw mut relative)).map(|()| relative)
}

pub fn safe_point() -> Result<(), Error> {
    call!(partita_safe_point())
}

pub fn not_before(seconds: f64) -> Result<(), Error> {
    call!(partita_not_before(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [&str; 2] = [include_str!("../../include/partita.h"), include_str!("../../include/mpi.h")];

    /// A type of C as it is called here; the name of a parameter may stand behind it.
    fn in_rust(c: &str) -> String {
        let words = c.trim();
        let (base, pointer) = match words.split_once('*') {
            Some((base, _)) => (base.trim(), "*mut "),
            None => (words, ""),
        };
        let known = [
            ("unsigned long long", "c_ulonglong"),
            ("int64_t", "i64"),
            ("double", "f64"),
            ("MPI_Comm", "Comm"),
            ("int", "c_int"),
            ("void", ""),
        ];
        let found = known.iter().find(|(name, _)| {
            base.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        });
        format!("{pointer}{}", found.map_or_else(|| panic!("unknown type: {c:?}"), |(_, rust)| rust))
    }

    /// Result and parameters of a function as the headers declare it.
    fn in_headers(name: &str) -> (String, Vec<String>) {
        let line = HEADERS.iter().flat_map(|header| header.lines()).find(|line| {
            line.split_once(name)
                .is_some_and(|(before, after)| before.ends_with(' ') && after.starts_with('('))
                && line.ends_with(");")
        });
        let line =
            line.unwrap_or_else(|| panic!("{name} is in no header")).trim_start_matches("PARTITA_WEAK ");
        let (result, rest) = line.split_once(name).expect("found by its name");
        let parameters = rest.trim_start_matches('(').trim_end_matches(");");
        let parameters = parameters.split(',').map(in_rust).filter(|rust| !rust.is_empty());
        (in_rust(result), parameters.collect())
    }

    #[test]
    fn every_declaration_is_that_of_the_header_and_none_is_missing() {
        for (name, arguments, result) in DECLARED {
            let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!((result.to_string(), arguments), in_headers(name), "{name}");
        }
        let weak = HEADERS[0].lines().filter_map(|line| line.strip_prefix("PARTITA_WEAK "));
        for line in weak {
            let name = line.split(['(', ' ']).find(|word| word.starts_with("partita_")).expect("a name");
            assert!(DECLARED.iter().any(|(declared, ..)| *declared == name), "{name} is missing here");
        }
    }

    #[test]
    fn the_world_is_that_of_the_header() {
        let line = HEADERS[1].lines().find(|line| line.starts_with("#define MPI_COMM_WORLD "));
        assert!(line.expect("it is in mpi.h").ends_with(&format!("((MPI_Comm){:#x})", WORLD.0.addr())));
    }

    #[test]
    fn without_an_mpi_library_everything_links_and_nothing_is_called() {
        assert!(!are_present());
        assert_eq!(check(), Err(Error::NotRunning));
        assert_eq!(share(3, 4), Err(Error::NotRunning));
    }
}
