//! What a Rust program can tell Partita besides MPI, and ask it: the calls of `partita.h`, for use beside rsmpi (the crate `mpi`).
//!
//! A program that can shift work between its ranks counts it in *units* of its own choice (rows, cells, particles), numbered from 0;
//! rank 0 has the first ones, the last rank the last ones. It says what they cost, and is told how many each rank should have:
//!
//! ```no_run
//! # use std::time::Instant;
//! # fn compute(_: std::ops::Range<u64>) {}
//! # fn move_data(_: std::ops::Range<u64>, _: &std::ops::Range<u64>) {}
//! # fn main() -> Result<(), partita::Error> {
//! let partita = partita::Partita::new()?; // after mpi::initialize()
//! let mut units = partita.define(3000, 1000..2000)?;
//! for step in 1..=500 {
//!     let start = Instant::now();
//!     compute(units.mine());
//!     units.report(units.count(), start.elapsed())?;
//!     if step % 10 == 0 {
//!         partita.safe_point()?;
//!         let wanted = units.share()?; // collective
//!         move_data(units.mine(), &wanted); // the program's own, among all ranks: others may have changed where this one has not
//!         units.take(wanted)?;
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! The crate links with every MPI library, and without one. Under another than Partita's the calls do nothing and
//! [`Units::share`] gives what there is, so that one source runs everywhere.

mod calls;
mod error;

use std::marker::PhantomData;
use std::ops::Range;
use std::time::Duration;

pub use error::Error;

/// The right to make the calls: MPI runs, and this is its main thread, which the value does not leave.
#[derive(Debug, Clone, Copy)]
pub struct Partita {
    stays_here: PhantomData<*const ()>,
}

impl Partita {
    /// To be called between `mpi::initialize()` and the end of its universe, on the same thread; so are all other calls.
    pub fn new() -> Result<Self, Error> {
        calls::check()?;
        Ok(Self { stays_here: PhantomData })
    }

    /// Whether this is Partita's MPI library. Under another one the calls do nothing.
    pub fn is_present(self) -> bool {
        calls::are_present()
    }

    /// Adds units of work (whatever the program calls one) to the progress that the coordinator shows.
    pub fn report_progress(self, units: u64) -> Result<(), Error> {
        calls::report_progress(units)
    }

    /// This rank has the units `mine` of the application's `total`.
    pub fn define(self, total: u64, mine: Range<u64>) -> Result<Units, Error> {
        let units = Units { partita: self, total, mine };
        units.tell()?;
        Ok(units)
    }

    /// Speed of this rank's host relative to the mean of the application's hosts; 1 while nobody knows.
    pub fn host_speed(self) -> Result<f64, Error> {
        calls::host_speed()
    }

    /// Now is a good moment to move this rank; a pause waits some milliseconds for it.
    pub fn safe_point(self) -> Result<(), Error> {
        calls::safe_point()
    }

    /// A move of this rank is unwelcome for so long, at most 30 years; zero takes that back.
    pub fn not_before(self, time: Duration) -> Result<(), Error> {
        calls::not_before(time.as_secs_f64())
    }
}

/// The units that this rank has.
#[derive(Debug)]
pub struct Units {
    partita: Partita,
    total: u64,
    mine: Range<u64>,
}

impl Units {
    /// Those of this rank.
    pub fn mine(&self) -> Range<u64> {
        self.mine.clone()
    }

    /// How many this rank has.
    pub fn count(&self) -> u64 {
        self.mine.end - self.mine.start
    }

    /// This rank has computed `units` more units in `time`, in which it waited for nobody; every step or every few.
    pub fn report(&self, units: u64, time: Duration) -> Result<(), Error> {
        calls::report_units(whole(units)?, time.as_secs_f64())
    }

    /// Which units this rank should have from now on: the coordinator's newest shares, or the present ones.
    ///
    /// Collective over `MPI_COMM_WORLD`: every rank of the application has to call it, and all take a sharing-out up or none does.
    /// Then the program moves its data, and [takes](Self::take) the units.
    pub fn share(&self) -> Result<Range<u64>, Error> {
        let (first, count) = calls::share(whole(self.mine.start)?, whole(self.count())?)?;
        let wanted = range(first, count).filter(|wanted| wanted.end <= self.total);
        // What the library says is checked as well: it becomes lengths of the program.
        wanted.ok_or(Error::NoSuchUnits {
            total: self.total,
            mine: first as u64..first.wrapping_add(count) as u64,
        })
    }

    /// This rank has these units now.
    pub fn take(&mut self, mine: Range<u64>) -> Result<(), Error> {
        let units = Self { partita: self.partita, total: self.total, mine };
        units.tell()?;
        *self = units;
        Ok(())
    }

    fn tell(&self) -> Result<(), Error> {
        if self.total == 0 || self.mine.start > self.mine.end || self.mine.end > self.total {
            return Err(Error::NoSuchUnits { total: self.total, mine: self.mine() });
        }
        calls::define_units(whole(self.total)?, whole(self.mine.start)?, whole(self.count())?)
    }
}

/// A number of units as the calls take it.
fn whole(units: u64) -> Result<i64, Error> {
    i64::try_from(units).map_err(|_| Error::TooMany { units })
}

fn range(first: i64, count: i64) -> Option<Range<u64>> {
    let (first, count) = (u64::try_from(first).ok()?, u64::try_from(count).ok()?);
    Some(first..first.checked_add(count)?)
}
