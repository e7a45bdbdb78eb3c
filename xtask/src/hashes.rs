//! Documents that describe sources: when the sources change, a person reads the document and renews its hash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::finding::Finding;
use crate::tree::{self, Tree};

/// Where documents, their sources and the hashes are.
pub const HASHES: &str = "docs/hashes.toml";

const HEADER: &str = "# Documents and the sources they describe. When a source changes: read the document, correct it,\n\
    # then run `cargo xtask tidy --update-hashes`.\n";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Files, in a fixed order.
    sources: Vec<String>,
    /// SHA-256 over paths and contents of the sources, in hexadecimal.
    #[serde(default)]
    hash: String,
}

type Entries = BTreeMap<String, Entry>;

/// Documents whose sources have changed since somebody read them.
pub fn check(tree: &Tree) -> Result<Vec<Finding>, tree::Error> {
    let entries: Entries = tree.toml(HASHES)?.unwrap_or_default();
    let mut findings = Vec::new();
    for (document, entry) in &entries {
        let line = tree.line_of(HASHES, &format!("{document:?}"));
        if !tree.exists(document) {
            findings.push(Finding::new(HASHES, line, format!("there is no {document}"), "remove the entry"));
            continue;
        }
        for source in entry.sources.iter().filter(|source| !tree.texts.contains_key(*source)) {
            findings.push(Finding::new(HASHES, line, format!("there is no {source}"), "correct the sources"));
        }
        if entry.hash != hash(tree, &entry.sources) {
            let what =
                format!("{} changed since this document was last read against it", entry.sources.join(", "));
            let remedy = "read the document, correct it, then run `cargo xtask tidy --update-hashes`";
            findings.push(Finding::new(document, 1, what, remedy));
        }
    }
    Ok(findings)
}

/// Renews all hashes. Returns the documents whose hash changed.
pub fn update(tree: &Tree) -> Result<Vec<String>, tree::Error> {
    let mut entries: Entries = tree.toml(HASHES)?.unwrap_or_default();
    let mut changed = Vec::new();
    for (document, entry) in &mut entries {
        let hash = hash(tree, &entry.sources);
        if entry.hash != hash {
            entry.hash = hash;
            changed.push(document.clone());
        }
    }
    if !changed.is_empty() {
        tree.write(HASHES, &render(&entries))?;
    }
    Ok(changed)
}

fn render(entries: &Entries) -> String {
    let mut text = HEADER.to_owned();
    for (document, entry) in entries {
        text += &format!("\n[{document:?}]\nsources = {:?}\nhash = {:?}\n", entry.sources, entry.hash);
    }
    text
}

fn hash(tree: &Tree, sources: &[String]) -> String {
    let mut hasher = Sha256::new();
    for source in sources {
        let text = tree.texts.get(source).map_or("", String::as_str);
        hasher.update(format!("{source}\n{}\n{text}", text.len()));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(source: &str, hashes: &str) -> Tree {
        let workspace = ("Cargo.toml", "[workspace]\nmembers = []\n");
        Tree::from_texts(&[workspace, ("docs/abi.md", "# ABI\n"), ("k/lib.rs", source), (HASHES, hashes)])
    }

    #[test]
    fn a_document_is_found_when_its_source_changes() {
        let sources = vec!["k/lib.rs".to_owned()];
        let hash = hash(&tree("fn a() {}", ""), &sources);
        let hashes = render(&Entries::from([("docs/abi.md".to_owned(), Entry { sources, hash })]));
        assert_eq!(check(&tree("fn a() {}", &hashes)).unwrap(), []);
        let findings = check(&tree("fn b() {}", &hashes)).unwrap();
        assert_eq!((findings.len(), findings[0].path.as_str()), (1, "docs/abi.md"));
    }

    #[test]
    fn an_entry_without_its_document_or_source_is_found() {
        let hashes = "[\"docs/gone.md\"]\nsources = []\n[\"docs/abi.md\"]\nsources = [\"k/gone.rs\"]\n";
        let findings = check(&tree("", hashes)).unwrap();
        let what: Vec<_> = findings.iter().map(|it| (it.path.as_str(), it.line)).collect();
        assert_eq!(what, [(HASHES, 3), ("docs/abi.md", 1), (HASHES, 1)]);
    }
}
