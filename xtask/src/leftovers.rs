//! Leftovers of work in progress: unfinished code, and text that only differs in white space.

use crate::finding::Finding;
use crate::rust::Rust;
use crate::tokens::{Kind, scan};
use crate::tree::Tree;

/// Every leftover in the tree.
pub fn check(tree: &Tree, rust: &Rust) -> Vec<Finding> {
    let mut findings: Vec<Finding> = rust
        .files
        .iter()
        .flat_map(|(path, file)| {
            scan(&file.tokens).into_iter().filter_map(|(kind, line)| code(path, line, kind))
        })
        .collect();
    findings.extend(tree.texts.iter().flat_map(|(path, text)| white_space(path, text)));
    let not_utf8 = |path: &String| Finding::new(path, 1, "the text is not UTF-8", "convert it");
    findings.extend(tree.not_utf8.iter().map(not_utf8));
    findings
}

fn code(path: &str, line: usize, kind: Kind) -> Option<Finding> {
    let (what, remedy) = match kind {
        Kind::Todo => ("`todo!`", "write it, or return an error that says it is missing"),
        Kind::Unimplemented => ("`unimplemented!`", "write it, or return an error that says it is missing"),
        Kind::Dbg => ("`dbg!`", "remove it, or use `tracing`"),
        Kind::IgnoreWithoutReason => ("`#[ignore]` without a reason", "write `#[ignore = \"why\"]`"),
        Kind::Unsafe | Kind::Unwrap => return None,
    };
    Some(Finding::new(path, line, what, remedy))
}

fn white_space(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, number) in text.split('\n').zip(1..) {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(path, number, "white space at the end of the line", "remove it"));
        }
        if path.ends_with(".rs") && line.contains('\t') {
            findings.push(Finding::new(path, number, "a tab", "use spaces, or `\\t` in a string"));
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        let last = text.lines().count();
        findings.push(Finding::new(path, last, "the last line has no end", "add a newline"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_found_with_their_lines() {
        let tree = Tree::from_texts(&[
            ("Cargo.toml", "[workspace]\nmembers = []\n"),
            ("Makefile", "all:\n\ttrue\n"),
            (
                "a.rs",
                "fn f() {\n    todo!()\n}\n#[ignore]\nfn g() {\n\tunimplemented!();\n    dbg!(\"todo!()\") \n}",
            ),
        ]);
        let mut lines: Vec<_> =
            check(&tree, &Rust::parse(&tree)).into_iter().map(|it| (it.path, it.line, it.what)).collect();
        lines.sort();
        let expected = [
            (2, "`todo!`"),
            (4, "`#[ignore]` without a reason"),
            (6, "`unimplemented!`"),
            (6, "a tab"),
            (7, "`dbg!`"),
            (7, "white space at the end of the line"),
            (8, "the last line has no end"),
        ];
        assert_eq!(lines, expected.map(|(line, what)| ("a.rs".to_owned(), line, what.to_owned())));
    }
}
