//! `unsafe` stands only in the modules that are made for it.

use serde::Deserialize;

use crate::finding::Finding;
use crate::rust::Rust;
use crate::tokens::{Kind, scan};
use crate::tree::{self, Tree};

/// Where those modules are listed.
pub const LIST: &str = "xtask/unsafe.toml";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct List {
    module: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// A file, or a module without `.rs`: the file and everything in the directory of that name.
    path: String,
    /// Why it needs `unsafe`.
    reason: String,
}

impl Entry {
    fn covers(&self, path: &str) -> bool {
        let rest = path.strip_prefix(&self.path);
        rest.is_some_and(|rest| rest.is_empty() || rest == ".rs" || rest.starts_with('/'))
    }
}

/// Uses of `unsafe` outside the list, and entries of the list that nothing needs any more.
pub fn check(tree: &Tree, rust: &Rust) -> Result<Vec<Finding>, tree::Error> {
    let list: List = tree.toml(LIST)?.unwrap_or_default();
    let mut findings = Vec::new();
    let mut used = vec![false; list.module.len()];
    for (path, file) in &rust.files {
        let lines: Vec<_> =
            scan(&file.tokens).into_iter().filter(|(kind, _)| *kind == Kind::Unsafe).collect();
        let (Some((_, line)), count) = (lines.first().copied(), lines.len()) else { continue };
        match list.module.iter().position(|entry| entry.covers(path)) {
            Some(index) => used[index] = true,
            None => {
                let what = format!("`unsafe` in a module not made for it ({count} times, the first here)");
                let remedy =
                    format!("move it into a module of {LIST}, or add this one there with the reason");
                findings.push(Finding::new(path, line, what, remedy));
            }
        }
    }
    for (entry, used) in list.module.iter().zip(used) {
        let line = tree.line_of(LIST, &format!("{:?}", entry.path));
        if !used {
            let what = format!("{} has no `unsafe` that an earlier entry does not cover", entry.path);
            findings.push(Finding::new(LIST, line, what, "remove the entry"));
        }
        if entry.reason.trim().is_empty() {
            let what = format!("{} has no reason", entry.path);
            findings.push(Finding::new(LIST, line, what, "say why it needs `unsafe`"));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(list: &str) -> Vec<(String, usize)> {
        let tree = Tree::from_texts(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"k\"]\n"),
            ("k/Cargo.toml", "[package]\nname = \"k\"\n"),
            ("k/src/lib.rs", "#![forbid(unsafe_code)]\nmod ring;\nmod rings;\n"),
            ("k/src/ring.rs", "mod deep;\n"),
            ("k/src/ring/deep.rs", "fn f() {\n    // SAFETY: a test.\n    unsafe { g() }\n}\n"),
            ("k/src/rings.rs", "m! { unsafe { g() } }\n"),
            (LIST, list),
        ]);
        check(&tree, &Rust::parse(&tree)).unwrap().into_iter().map(|it| (it.path, it.line)).collect()
    }

    #[test]
    fn unsafe_is_found_outside_the_list_only() {
        assert_eq!(found(""), [("k/src/ring/deep.rs".into(), 3), ("k/src/rings.rs".into(), 1)]);
        let list = "[[module]]\npath = \"k/src/ring\"\nreason = \"shared memory\"\n";
        assert_eq!(found(list), [("k/src/rings.rs".into(), 1)]);
    }

    #[test]
    fn an_entry_without_use_or_reason_is_found() {
        let list =
            "[[module]]\npath = \"k/src\"\nreason = \" \"\n[[module]]\npath = \"k/gone\"\nreason = \"x\"\n";
        assert_eq!(found(list), [(LIST.into(), 2), (LIST.into(), 5)]);
    }
}
