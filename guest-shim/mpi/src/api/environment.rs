//! Start, end and everything about the process.

use alloc::format;
use core::ffi::{c_char, c_int, c_void};

use super::{api, collective, error_code, put, put_text};
use crate::collective::select;
use crate::error;
use crate::handle::{Comm, Info};
use crate::runtime::progress::wait_until;
use crate::runtime::state::{Mpi, Owner, Phase, begin, end, fatal, phase, with};
use crate::sys;
use crate::transport::Transport;

/// `MPI_THREAD_SERIALIZED`, the most that is offered.
const THREAD_SERIALIZED: c_int = 2048;

fn init(thread_level: c_int) {
    if phase() != Phase::Before {
        fatal(format_args!("MPI_Init was called twice"));
    }
    let chosen = sys::environment(c"PARTITA_COLLECTIVES").and_then(|text| text.to_str().ok());
    if let Err(part) = select::force(chosen.unwrap_or_default()) {
        fatal(format_args!("PARTITA_COLLECTIVES: {part}: not COLLECTIVE:ALGORITHM, see docs/mpi.md"));
    }
    match Transport::open() {
        Ok((transport, place)) => {
            let mut mpi = Mpi::new(transport, place);
            mpi.thread_level = thread_level;
            begin(mpi);
        }
        Err(why) => {
            sys::print_error(&format!("MPI: {why}\n"));
            sys::exit_normally(1)
        }
    }
}

/// All messages of all ranks have arrived and everything written has been taken: nobody needs this rank any more.
fn finalize() -> Result<(), error::Error> {
    super::attribute::delete_all(Owner::Comm(Comm::SELF))?;
    wait_until(|| {
        with(|mpi| {
            mpi.collect_buffered();
            mpi.attached.messages.is_empty() && !mpi.engine.has_output()
        })
    });
    collective::barrier(Comm::WORLD)?;
    // What is in the rings is the fabric's: it arrives even if this program ends now. The far end may have ended after
    // it took the last message, so nobody can be asked whether it did.
    wait_until(|| with(|mpi| !mpi.engine.has_output()));
    end();
    Ok(())
}

const VERSION: &str =
    concat!("Partita MPI ", env!("CARGO_PKG_VERSION"), " (MPI 5.0 ABI, point-to-point and collectives)");

api! {
    /// Starts MPI.
    Init(argc: *mut c_int, argv: *mut c_void) {
        let _ = (argc, argv);
        init(0);
        Ok(())
    }

    /// Starts MPI with a thread level; a partition has one thread.
    Init_thread(argc: *mut c_int, argv: *mut c_void, required: c_int, provided: *mut c_int) {
        let _ = (argc, argv);
        let level = required.clamp(0, THREAD_SERIALIZED);
        init(level);
        put(provided, level);
        Ok(())
    }

    /// The thread level.
    Query_thread(provided: *mut c_int) {
        put(provided, with(|mpi| mpi.thread_level));
        Ok(())
    }

    /// There is one thread.
    Is_thread_main(flag: *mut c_int) {
        put(flag, 1);
        Ok(())
    }

    /// Ends MPI when everything sent has arrived everywhere.
    Finalize() {
        finalize()?;
        Ok(())
    }

    /// Whether MPI was started.
    Initialized(flag: *mut c_int) {
        put(flag, c_int::from(phase() != Phase::Before));
        Ok(())
    }

    /// Whether MPI was ended.
    Finalized(flag: *mut c_int) {
        put(flag, c_int::from(phase() == Phase::After));
        Ok(())
    }

    /// Ends the whole application.
    Abort(comm: Comm, code: c_int) {
        let rank = with(|mpi| mpi.place.rank);
        let _ = comm;
        sys::print_error(&format!("MPI: rank {rank} called MPI_Abort with code {code}\n"));
        sys::exit_group(if code == 0 { 1 } else { code })
    }

    /// The name of the host, as far as a partition has one.
    Get_processor_name(name: *mut c_char, length: *mut c_int) {
        let (rank, found) = with(|mpi| (mpi.place.rank, mpi.transport.name()));
        let found = found.unwrap_or([0; 64]);
        let end = found.iter().position(|&byte| byte == 0).unwrap_or(found.len());
        if end > 0 {
            put_text(name, &found[..end], length);
        } else {
            put_text(name, format!("rank-{rank}").as_bytes(), length);
        }
        Ok(())
    }

    /// The MPI standard in use.
    Get_version(version: *mut c_int, subversion: *mut c_int) {
        put(version, 5);
        put(subversion, 0);
        Ok(())
    }

    /// This library.
    Get_library_version(text: *mut c_char, length: *mut c_int) {
        put_text(text, VERSION.as_bytes(), length);
        Ok(())
    }

    /// The ABI in use.
    Abi_get_version(version: *mut c_int, subversion: *mut c_int) {
        put(version, 1);
        put(subversion, 0);
        Ok(())
    }

    /// What an error code means.
    Error_string(code: c_int, text: *mut c_char, length: *mut c_int) {
        match error_code::made_by_program(code) {
            Some((_, words)) => put_text(text, &words, length),
            None => {
                let (name, meaning) = error::describe(code);
                put_text(text, format!("{name}: {meaning}").as_bytes(), length);
            }
        }
        Ok(())
    }

    /// The class of a code; codes of the library are classes.
    Error_class(code: c_int, class: *mut c_int) {
        put(class, error_code::made_by_program(code).map_or(code, |(class, _)| class));
        Ok(())
    }

    /// Memory for messages.
    Alloc_mem(size: isize, info: Info, pointer: *mut c_void) {
        let _ = info;
        let bytes = size.max(0).cast_unsigned();
        put(pointer.cast::<*mut c_void>(), sys::allocate_memory(bytes));
        Ok(())
    }

    /// Frees what Alloc_mem gave.
    Free_mem(pointer: *mut c_void) {
        sys::free_memory(pointer);
        Ok(())
    }

    /// Profiling levels mean nothing here.
    Pcontrol(level: c_int) {
        let _ = level;
        Ok(())
    }
}

fn wtime() -> f64 {
    sys::monotonic_ns() as f64 * 1e-9
}

/// Seconds since some time in the past.
#[unsafe(export_name = "PMPI_Wtime")]
pub extern "C" fn Wtime() -> f64 {
    wtime()
}

/// Seconds between ticks of Wtime.
#[unsafe(export_name = "PMPI_Wtick")]
pub extern "C" fn Wtick() -> f64 {
    1e-9
}

/// Adds displacements.
#[unsafe(export_name = "PMPI_Aint_add")]
pub extern "C" fn Aint_add(base: isize, displacement: isize) -> isize {
    base.wrapping_add(displacement)
}

/// Subtracts addresses.
#[unsafe(export_name = "PMPI_Aint_diff")]
pub extern "C" fn Aint_diff(first: isize, second: isize) -> isize {
    first.wrapping_sub(second)
}

api!(@alias Wtime);
api!(@alias Wtick);
api!(@alias Aint_add);
api!(@alias Aint_diff);

/// Adds units of work to the progress that the coordinator sees. Declared in `partita.h`; not part of MPI.
#[unsafe(no_mangle)]
pub extern "C" fn partita_report_progress(units: u64) {
    with(|mpi| mpi.transport.add_progress(units));
}
