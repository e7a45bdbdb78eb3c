//! The algorithms of the collectives, as writers of schedules.
//!
//! Which algorithm is taken is said in one table, [`select`].
//!
//! What a reduction computes depends on the number of ranks, the operation, the size and nothing else. Orders (a b means
//! "a op b" with a from lower ranks; for commutative operations operands may be swapped, which changes no bit of a sum):
//!
//! | collective | order |
//! |---|---|
//! | Allreduce | recursive doubling: for 4 ranks (0 1)(2 3); surplus ranks over a power of two are paired first: 5 ranks ((0 1) 2)(3 4); Rabenseifner has the same tree |
//! | Reduce | binomial tree from the root up: (r r+1)(r+2 r+3) …; not commutative, or larger than [`reduce::SHORT_BYTES`] with an operation of the program: from rank 0; larger, predefined: the order of Allreduce, with Rabenseifner, too |
//! | Scan, Exscan | recursive doubling |
//! | Reduce_scatter, _block | commutative: pairs at the largest distance first, 4 ranks: (0 2)(1 3); otherwise as Allreduce |
//!
//! These are the orders of Debian's MPICH 4.0.2, and `tests/check.sh` compares the bits, except: Reduce_scatter of 512 KiB
//! and more, and of operations that do not commute when the number of ranks is no power of two. MPICH 5.0.2 chooses other
//! algorithms and agrees for 2 ranks.

mod bruck;
pub mod data;
pub mod inter;
pub mod reduce;
pub mod select;
mod tree;
