//! All checks of the source tree, one after the other.

use crate::finding::Finding;
use crate::rust::Rust;
use crate::tree::{self, Tree};
use crate::{arrows, cycles, hashes, leftovers, links, sizes, unsafety};

/// Everything that is wrong with the tree, in the order of paths and lines.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, tree::Error> {
    let rust = Rust::parse(tree);
    let mut findings = [
        cycles::check(&rust),
        arrows::check(tree),
        sizes::check(tree, &rust)?,
        unsafety::check(tree, &rust)?,
        hashes::check(tree)?,
        leftovers::check(tree, &rust),
        links::check(tree),
    ]
    .concat();
    findings.extend(rust.findings);
    findings.sort();
    findings.dedup();
    Ok(findings)
}
