//! LBAF problems.
