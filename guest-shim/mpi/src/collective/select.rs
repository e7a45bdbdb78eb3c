//! Which algorithm a collective uses: one table, by bytes and number of ranks.
//!
//! | algorithm | where it is from |
//! |---|---|
//! | binomial tree, recursive doubling, recursive halving, ring, pairwise exchange | R. Thakur, R. Rabenseifner, W. Gropp, *Optimization of Collective Communication Operations in MPICH*, IJHPCA 19(1), 2005 |
//! | Bruck | J. Bruck, C.-T. Ho, S. Kipnis, E. Upfal, D. Weathersby, *Efficient Algorithms for All-to-All Communications in Multiport Message-Passing Systems*, IEEE TPDS 8(11), 1997 |
//! | Rabenseifner: reduce-scatter by recursive halving, then gather or allgather | R. Rabenseifner, *Optimization of Collective Reduction Operations*, ICCS 2004 |
//! | scatter and ring | M. Barnett, L. Shuler, R. van de Geijn, S. Gupta, D. Payne, J. Watts, *Interprocessor Collective Communication Library (InterCom)*, SHPCC 1994 |
//! | dissemination (barrier, the only one it has) | D. Hensgen, R. Finkel, U. Manber, *Two Algorithms for Barrier Synchronization*, IJPP 17(1), 1988 |
//!
//! A ring for Allreduce is not here on purpose: every element would be added up in another order (see the module above).
//! Where algorithms of one collective give different orders, the boundary is not in this table but fixed with the promise.
//! `tests/collective_bench.py` measures what the boundaries should be. `PARTITA_COLLECTIVES=allgather:ring,gather:linear`
//! takes an algorithm wherever it can be used, for tests and measurements; it has to be the same on all ranks.

use core::sync::atomic::{AtomicU8, Ordering};

/// What is chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Collective {
    Broadcast,
    Gather,
    Scatter,
    Allgather,
    Alltoall,
    Reduce,
    Allreduce,
}

/// How it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Algorithm {
    Linear,
    Binomial,
    ScatterRing,
    AtOnce,
    Bruck,
    Ring,
    Pairwise,
    RecursiveDoubling,
    Rabenseifner,
}

use Algorithm as A;
use Collective as C;

struct Row {
    of: Collective,
    algorithm: Algorithm,
    /// Used from this size on; of one block, or of the whole message (Broadcast, Reduce, Allreduce).
    bytes: usize,
    /// Used from this number of ranks on.
    ranks: usize,
}

const fn row(of: Collective, algorithm: Algorithm, bytes: usize, ranks: usize) -> Row {
    Row { of, algorithm, bytes, ranks }
}

/// The first row that fits is taken; the last one of each collective always fits.
const TABLE: &[Row] = &[
    row(C::Broadcast, A::ScatterRing, 128 << 10, 8),
    row(C::Broadcast, A::Binomial, 0, 1),
    row(C::Gather, A::Linear, 257, 1),
    row(C::Gather, A::Binomial, 0, 16),
    row(C::Gather, A::Linear, 0, 1),
    row(C::Scatter, A::Linear, 257, 1),
    row(C::Scatter, A::Binomial, 0, 16),
    row(C::Scatter, A::Linear, 0, 1),
    row(C::Allgather, A::Ring, 64 << 10, 3),
    row(C::Allgather, A::AtOnce, 1025, 1),
    row(C::Allgather, A::Bruck, 0, 4),
    row(C::Allgather, A::AtOnce, 0, 1),
    row(C::Alltoall, A::Pairwise, 2049, 1),
    row(C::Alltoall, A::AtOnce, 257, 1),
    row(C::Alltoall, A::Bruck, 0, 8),
    row(C::Alltoall, A::AtOnce, 0, 1),
    row(C::Reduce, A::Rabenseifner, 16 << 10, 2),
    row(C::Reduce, A::Binomial, 0, 1),
    row(C::Allreduce, A::Rabenseifner, 16 << 10, 2),
    row(C::Allreduce, A::RecursiveDoubling, 0, 1),
];

const NAMES: &[(&str, Collective)] = &[
    ("broadcast", C::Broadcast),
    ("gather", C::Gather),
    ("scatter", C::Scatter),
    ("allgather", C::Allgather),
    ("alltoall", C::Alltoall),
    ("reduce", C::Reduce),
    ("allreduce", C::Allreduce),
];

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("linear", A::Linear),
    ("binomial", A::Binomial),
    ("scatter-ring", A::ScatterRing),
    ("at-once", A::AtOnce),
    ("bruck", A::Bruck),
    ("ring", A::Ring),
    ("pairwise", A::Pairwise),
    ("recursive-doubling", A::RecursiveDoubling),
    ("rabenseifner", A::Rabenseifner),
];

/// By collective: one more than the place of the algorithm in `ALGORITHMS`, or 0.
static FORCED: [AtomicU8; 7] = [const { AtomicU8::new(0) }; 7];

/// The algorithm for a collective of so many bytes and ranks. It depends on nothing else, so all ranks agree.
pub fn algorithm(of: Collective, bytes: usize, ranks: usize) -> Algorithm {
    let forced = FORCED[of as usize].load(Ordering::Relaxed);
    if let Some(&(_, algorithm)) = usize::from(forced).checked_sub(1).and_then(|at| ALGORITHMS.get(at)) {
        return algorithm;
    }
    let fits = |row: &&Row| row.of == of && bytes >= row.bytes && ranks >= row.ranks;
    TABLE.iter().find(fits).map_or(A::Linear, |row| row.algorithm)
}

/// Takes algorithms as `PARTITA_COLLECTIVES` says: `COLLECTIVE:ALGORITHM,…`.
///
/// # Errors
/// The part that is not understood, or names an algorithm that the table does not have for this collective.
pub fn force(text: &str) -> Result<(), &str> {
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, wanted) = part.split_once(':').ok_or(part)?;
        let of = NAMES.iter().find(|(known, _)| *known == name).ok_or(part)?.1;
        let at = ALGORITHMS.iter().position(|(known, _)| *known == wanted).ok_or(part)?;
        if !TABLE.iter().any(|row| row.of == of && row.algorithm == ALGORITHMS[at].1) {
            return Err(part);
        }
        FORCED[of as usize].store(at as u8 + 1, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_collective_has_an_algorithm_for_every_size() {
        for &(name, of) in NAMES {
            let last = TABLE.iter().rfind(|row| row.of == of).unwrap_or_else(|| panic!("{name} has no row"));
            assert_eq!((last.bytes, last.ranks), (0, 1), "{name}");
        }
        assert_eq!(algorithm(C::Broadcast, 1 << 20, 2), A::Binomial);
        assert_eq!(algorithm(C::Broadcast, 1 << 20, 8), A::ScatterRing);
    }

    #[test]
    fn what_cannot_be_forced_is_refused() {
        assert_eq!(force("gather:ring"), Err("gather:ring"));
        assert_eq!(force("gather"), Err("gather"));
        assert_eq!(force("all:ring"), Err("all:ring"));
        assert_eq!(force(""), Ok(()));
    }
}
