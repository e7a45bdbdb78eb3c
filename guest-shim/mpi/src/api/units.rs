//! Units of work (`partita.h`; not part of MPI): what the program says about them, and how many a rank should have.
//!
//! The units page is the whole channel: no call here leaves the partition. A sharing-out has a generation; ranks take one up only
//! when all of them see the same, which a collective call finds out.

use alloc::vec;
use alloc::vec::Vec;
use core::ffi::c_int;
use core::sync::atomic::Ordering::{Acquire, Relaxed};

use partita_abi::UnitsPage;

use super::{api, collective, put};
use crate::error::{Error, class};
use crate::handle::{Comm, Datatype, Handle};
use crate::runtime::state::with;
use crate::sys;

const MPI_BYTE: Datatype = Handle(0x247);

fn page() -> &'static UnitsPage {
    with(|mpi| mpi.transport.units())
}

/// What one rank brings to an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Offer {
    generation: u64,
    target: u64,
    count: u64,
}

/// This rank's newest target, whole: the VMM writes the target before the generation.
fn offer(page: &UnitsPage) -> Offer {
    loop {
        let generation = page.generation.load(Acquire);
        let target = page.target.load(Acquire);
        if generation == page.generation.load(Acquire) {
            return Offer { generation, target, count: page.count.load(Relaxed) };
        }
    }
}

/// Units of every rank from now on: the targets when all are of one generation and add up to what there is, else what they have.
fn agree(offers: &[Offer], total: u64) -> Vec<u64> {
    let generation = offers.first().map_or(0, |offer| offer.generation);
    let sum = offers.iter().try_fold(0u64, |sum, offer| sum.checked_add(offer.target));
    let agreed =
        generation != 0 && sum == Some(total) && offers.iter().all(|offer| offer.generation == generation);
    offers.iter().map(|offer| if agreed { offer.target } else { offer.count }).collect()
}

/// Exchanges the offers of all ranks of `comm`.
fn exchange(comm: Comm, mine: Offer) -> Result<Vec<Offer>, Error> {
    let mut offers = vec![Offer { generation: 0, target: 0, count: 0 }; collective::size_in(comm)?];
    let bytes = size_of::<Offer>() as c_int;
    // SAFETY: one offer to send, one of every rank to receive; `Offer` is plain data without padding.
    let result = unsafe {
        collective::Allgather(
            (&raw const mine).cast(),
            bytes,
            MPI_BYTE,
            offers.as_mut_ptr().cast(),
            bytes,
            MPI_BYTE,
            comm,
        )
    };
    match result {
        class::SUCCESS => Ok(offers),
        _ => Err(Error::Invalid(class::OTHER, "the ranks could not exchange their shares")),
    }
}

fn whole(value: i64, what: &'static str) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_| Error::Invalid(class::ARG, what))
}

/// Nanoseconds of a number of seconds that a program gives.
fn nanoseconds(seconds: f64) -> Result<u64, Error> {
    if !(0.0..1e9).contains(&seconds) {
        return Err(Error::Invalid(class::ARG, "a time is negative, longer than 30 years or no number"));
    }
    Ok((seconds * 1e9) as u64)
}

// The macro names its functions for MPI; these have names of their own.
macro_rules! partita {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) $(on $comm:ident)? $body:block)*) => { $(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> c_int {
            #[allow(unused_unsafe)]
            // SAFETY: the program gives the pointers that `partita.h` asks for.
            let body = || unsafe { api!(@result $($comm)?; $body) };
            super::answer(stringify!($name), body())
        }
    )* };
}

partita! {
    /// This rank has `count` of the application's `total` units, from `first` on.
    partita_define_units(total: i64, first: i64, count: i64) {
        let [total, first, count] = [total, first, count].map(|n| whole(n, "a number of units is negative"));
        let (total, first, count) = (total?, first?, count?);
        if total == 0 || first.checked_add(count).is_none_or(|end| end > total) {
            return Err(Error::Invalid(class::ARG, "a rank has units that the application has not").into());
        }
        let page = page();
        page.total.store(total, Relaxed);
        page.first.store(first, Relaxed);
        page.count.store(count, Relaxed);
        Ok(())
    }

    /// This rank has computed `units` more units in `seconds` of elapsed time, in which it waited for nobody.
    partita_report_units(units: i64, seconds: f64) {
        let (units, cost_ns) = (whole(units, "a number of units is negative")?, nanoseconds(seconds)?);
        let page = page();
        page.done.store(page.done.load(Relaxed).wrapping_add(units), Relaxed);
        page.cost_ns.store(page.cost_ns.load(Relaxed).wrapping_add(cost_ns), Relaxed);
        Ok(())
    }

    /// Which units this rank should have from now on. Every rank of the application has to call it, with a communicator of all.
    partita_share(comm: Comm, first: *mut i64, count: *mut i64) on comm {
        let page = page();
        let offers = exchange(comm, offer(page))?;
        let shares = agree(&offers, page.total.load(Relaxed));
        let rank = collective::rank_in(comm)?;
        put(first, shares[..rank].iter().fold(0u64, |sum, share| sum.wrapping_add(*share)).cast_signed());
        put(count, shares[rank].cast_signed());
        Ok(())
    }

    /// Speed of this rank's host relative to the mean of the application's hosts; 1 while nobody knows.
    partita_host_speed(relative: *mut f64) {
        let ppm = page().speed_ppm.load(Relaxed);
        put(relative, if ppm == 0 { 1.0 } else { ppm as f64 / 1e6 });
        Ok(())
    }

    /// Now is a good moment to move this rank.
    partita_safe_point() {
        let points = &page().safe_points;
        points.store(points.load(Relaxed).wrapping_add(1), Relaxed);
        Ok(())
    }

    /// A move of this rank is unwelcome for so many seconds; 0 takes that back.
    partita_not_before(seconds: f64) {
        let until = sys::monotonic_ns().saturating_add(nanoseconds(seconds)?);
        page().not_before_ns.store(until, Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(generation: u64, target: u64) -> Offer {
        Offer { generation, target, count: 10 }
    }

    #[test]
    fn targets_are_taken_up_by_all_ranks_or_by_none() {
        assert_eq!(agree(&[offer(3, 5), offer(3, 15)], 20), [5, 15]);
        assert_eq!(agree(&[offer(3, 5), offer(2, 15)], 20), [10, 10]);
        assert_eq!(agree(&[offer(0, 5), offer(0, 15)], 20), [10, 10]);
        // A sum that is not the whole comes from somebody who does not know the program.
        assert_eq!(agree(&[offer(3, 5), offer(3, 16)], 20), [10, 10]);
        assert_eq!(agree(&[offer(3, u64::MAX), offer(3, 21)], 20), [10, 10]);
    }

    #[test]
    fn only_times_that_can_be_are_taken() {
        assert_eq!(nanoseconds(1.5).ok(), Some(1_500_000_000));
        assert!([-1.0, f64::NAN, f64::INFINITY, 1e10].iter().all(|time| nanoseconds(*time).is_err()));
    }
}
