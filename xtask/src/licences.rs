//! The licence of every package we build with can be satisfied from the list in `deny.toml`.
//!
//! The same as `cargo deny check licenses sources`, which takes minutes to build on an empty machine.

use std::path::Path;

use cargo_metadata::{CargoOpt, MetadataCommand, Package};
use serde::Deserialize;
use spdx::{Expression, LicenseReq, Licensee, ParseMode};

use crate::finding::Finding;
use crate::tree::{self, Tree};

/// Where the allowed licences are: the file of cargo-deny.
pub const DENY: &str = "deny.toml";

/// The check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The list could not be read.
    #[error("cannot read the allowed licences")]
    Tree(#[from] tree::Error),
    /// There is no list.
    #[error("{DENY} is missing")]
    Missing,
    /// The list names a licence that SPDX does not know.
    #[error("{DENY} allows the unknown licence {name:?}")]
    Unknown {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: spdx::ParseError,
    },
    /// Cargo did not say what the packages are.
    #[error("cannot list the packages; build the workspace once, then try again")]
    Metadata(#[from] cargo_metadata::Error),
}

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// Packages whose licence or origin is not allowed. Needs no network, only what a build has fetched.
pub fn check(root: &Path, tree: &Tree) -> Result<Vec<Finding>, Error> {
    let deny: Deny = tree.toml(DENY)?.ok_or(Error::Missing)?;
    let allowed = parse_allowed(&deny.licenses.allow)?;
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(vec![
            "--offline".into(),
            "--locked".into(),
            "--filter-platform".into(),
            "x86_64-unknown-linux-gnu".into(),
        ])
        .exec()?;
    let used: Vec<_> =
        metadata.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| &node.id).collect();
    let mut findings = Vec::new();
    for package in metadata.packages.iter().filter(|package| used.contains(&&package.id)) {
        let problem = licence_problem(package.license.as_deref(), &allowed)
            .or_else(|| source_problem(package, &deny.sources));
        if let Some(what) = problem {
            let line = tree.line_of("Cargo.lock", &format!("name = \"{}\"", package.name));
            let what = format!("{} {}: {what}", package.name, package.version);
            let remedy = format!("use another package, or allow it in {DENY} when the licence is permissive");
            findings.push(Finding::new("Cargo.lock", line, what, remedy));
        }
    }
    Ok(findings)
}

fn parse_allowed(names: &[String]) -> Result<Vec<Licensee>, Error> {
    let parse =
        |name: &String| Licensee::parse(name).map_err(|source| Error::Unknown { name: name.clone(), source });
    names.iter().map(parse).collect()
}

/// What is wrong with a licence expression, if anything.
fn licence_problem(expression: Option<&str>, allowed: &[Licensee]) -> Option<String> {
    let Some(text) = expression else { return Some("names no licence".to_owned()) };
    let Ok(parsed) = Expression::parse_mode(text, ParseMode::LAX) else {
        return Some(format!("the licence {text:?} is not an SPDX expression"));
    };
    let is_allowed = |required: &LicenseReq| allowed.iter().any(|licensee| licensee.satisfies(required));
    (!parsed.evaluate(is_allowed)).then(|| format!("the licence {text:?} is not allowed"))
}

fn source_problem(package: &Package, sources: &Sources) -> Option<String> {
    let source = package.source.as_ref()?.repr.as_str();
    let allowed =
        sources.allow_registry.iter().any(|registry| source.strip_prefix("registry+") == Some(registry));
    (!allowed).then(|| format!("it comes from {source}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_satisfied_from_the_list_or_not() {
        let names = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"].map(str::to_owned);
        let allowed = parse_allowed(&names).unwrap();
        for good in ["MIT", "GPL-3.0-only OR MIT", "MIT/Apache-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert_eq!(licence_problem(Some(good), &allowed), None, "{good}");
        }
        for bad in ["GPL-3.0-only", "MIT AND MPL-2.0", "no licence", ""] {
            assert!(licence_problem(Some(bad), &allowed).is_some(), "{bad}");
        }
        assert!(licence_problem(None, &allowed).is_some());
    }

    #[test]
    fn an_unknown_licence_in_the_list_is_an_error() {
        assert!(matches!(parse_allowed(&["Beer".to_owned()]), Err(Error::Unknown { .. })));
    }
}
