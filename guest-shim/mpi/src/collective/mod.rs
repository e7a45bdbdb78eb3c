//! The algorithms of the collectives, as writers of schedules.
//!
//! What a reduction computes depends on the number of ranks, the operation, the size and nothing else. Orders (a b means
//! "a op b" with a from lower ranks; for commutative operations operands may be swapped, which changes no bit of a sum):
//!
//! | collective | order | the same as MPICH 4 and 5 |
//! |---|---|---|
//! | Allreduce | recursive doubling: for 4 ranks (0 1)(2 3); surplus ranks over a power of two are paired first: 5 ranks ((0 1) 2)(3 4) | always (its Rabenseifner has the same tree) |
//! | Reduce | binomial tree from the root up: (r r+1)(r+2 r+3) …; not commutative, or larger than [`reduce::SHORT_BYTES`] with an operation of the program: from rank 0; larger, predefined: the order of Allreduce | yes |
//! | Scan, Exscan | recursive doubling | yes |
//! | Reduce_scatter, _block | commutative: pairs at the largest distance first, 4 ranks: (0 2)(1 3); otherwise as Allreduce | below 512 KiB; not commutative: when the number of ranks is a power of two |

pub mod data;
pub mod reduce;
