//! Ratchets: lengths of files and functions and counts of `.unwrap()`, which may only shrink where they are too large.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{ImplItemFn, ItemFn, ItemImpl, ItemMod, ItemTrait, TraitItemFn, Type};

use crate::finding::Finding;
use crate::rust::{Rust, RustFile};
use crate::tokens::{Kind, scan};
use crate::tree::{self, Tree};

/// Where the exceptions are.
pub const RATCHET: &str = "xtask/ratchet.toml";

/// Longest `.rs` file, in lines.
const FILE_LINES_MAX: usize = 800;
/// Longest function outside tests, in lines from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

const HEADER: &str = "# What is larger than the rules allow, with its present size. It may only shrink.\n\
    # Written by `cargo xtask tidy --update-ratchet`.\n\n";

/// What is larger than the rules allow.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ratchet {
    /// Lines of files, by path.
    files: BTreeMap<String, usize>,
    /// Lines of functions, by path and name: `vmm/src/a.rs Type::function`.
    functions: BTreeMap<String, usize>,
    /// Counts of `.unwrap()` outside tests, by path.
    unwraps: BTreeMap<String, usize>,
}

/// Something measured that is over its limit.
struct Excess {
    key: String,
    path: String,
    line: usize,
    size: usize,
}

/// What is over its limit, by the kinds of [`Ratchet`].
struct Measured {
    files: Vec<Excess>,
    functions: Vec<Excess>,
    unwraps: Vec<Excess>,
}

/// Compares the tree with the limits and the ratchet file.
pub fn check(tree: &Tree, rust: &Rust) -> Result<Vec<Finding>, tree::Error> {
    let ratchet: Ratchet = tree.toml(RATCHET)?.unwrap_or_default();
    let measured = measure(tree, rust);
    let mut findings = Vec::new();
    let split = "split it by concern";
    compare(tree, &measured.files, &ratchet.files, &mut findings, |it, allowed| {
        (format!("the file has {} lines, {} are allowed", it.size, allowed.unwrap_or(FILE_LINES_MAX)), split)
    });
    compare(tree, &measured.functions, &ratchet.functions, &mut findings, |it, allowed| {
        let name = it.key.split(' ').nth(1).unwrap_or_default();
        (
            format!("{name} has {} lines, {} are allowed", it.size, allowed.unwrap_or(FUNCTION_LINES_MAX)),
            split,
        )
    });
    compare(tree, &measured.unwraps, &ratchet.unwraps, &mut findings, |it, allowed| {
        let what = format!(
            "{} `.unwrap()` outside tests (the last one here), {} allowed",
            it.size,
            allowed.unwrap_or(0)
        );
        (what, "handle the case, or say in an `expect` why it cannot happen")
    });
    Ok(findings)
}

/// Writes the ratchet file anew. Returns what is new or larger than before: that should have a reason.
pub fn update(tree: &Tree, rust: &Rust) -> Result<Vec<String>, tree::Error> {
    let old: Ratchet = tree.toml(RATCHET)?.unwrap_or_default();
    let measured = measure(tree, rust);
    let sizes = |excesses: Vec<Excess>| excesses.into_iter().map(|it| (it.key, it.size)).collect();
    let new = Ratchet {
        files: sizes(measured.files),
        functions: sizes(measured.functions),
        unwraps: sizes(measured.unwraps),
    };
    let grown = |old: &BTreeMap<String, usize>, new: &BTreeMap<String, usize>| {
        let larger = new.iter().filter(|(key, size)| old.get(*key).is_none_or(|before| before < *size));
        larger.map(|(key, size)| format!("{key}: {size}")).collect::<Vec<_>>()
    };
    let grown = [
        grown(&old.files, &new.files),
        grown(&old.functions, &new.functions),
        grown(&old.unwraps, &new.unwraps),
    ]
    .concat();
    if new != old || !tree.exists(RATCHET) {
        tree.write(RATCHET, &render(&new))?;
    }
    Ok(grown)
}

fn render(ratchet: &Ratchet) -> String {
    let mut text = HEADER.to_owned();
    for (name, sizes) in
        [("files", &ratchet.files), ("functions", &ratchet.functions), ("unwraps", &ratchet.unwraps)]
    {
        text += &format!("[{name}]\n");
        for (key, size) in sizes {
            text += &format!("{key:?} = {size}\n");
        }
    }
    text
}

fn compare(
    tree: &Tree,
    measured: &[Excess],
    ratchet: &BTreeMap<String, usize>,
    findings: &mut Vec<Finding>,
    describe: impl Fn(&Excess, Option<usize>) -> (String, &'static str),
) {
    for excess in measured {
        let allowed = ratchet.get(&excess.key).copied();
        if allowed.is_none_or(|allowed| excess.size > allowed) {
            let (what, remedy) = describe(excess, allowed);
            findings.push(Finding::new(&excess.path, excess.line, what, remedy));
        }
    }
    for (key, allowed) in ratchet {
        let now = measured.iter().find(|it| it.key == *key).map(|it| it.size);
        let what = match now {
            None => format!("{key} is within its limit now or gone"),
            Some(size) if size < *allowed => format!("{key} has shrunk from {allowed} to {size}"),
            Some(_) => continue,
        };
        let line = tree.line_of(RATCHET, &format!("{key:?}"));
        findings.push(Finding::new(RATCHET, line, what, "run `cargo xtask tidy --update-ratchet`"));
    }
}

fn measure(tree: &Tree, rust: &Rust) -> Measured {
    let mut measured = Measured { files: Vec::new(), functions: Vec::new(), unwraps: Vec::new() };
    for (path, file) in &rust.files {
        let size = tree.texts.get(path).map_or(0, |text| text.lines().count());
        if size > FILE_LINES_MAX {
            measured.files.push(Excess {
                key: path.clone(),
                path: path.clone(),
                line: FILE_LINES_MAX + 1,
                size,
            });
        }
        for (name, (line, size)) in long_functions(file) {
            measured.functions.push(Excess { key: format!("{path} {name}"), path: path.clone(), line, size });
        }
        let unwraps = scan(&file.tokens)
            .into_iter()
            .filter(|(kind, line)| *kind == Kind::Unwrap && !file.is_test(*line));
        let lines: Vec<usize> = unwraps.map(|(_, line)| line).collect();
        if let Some(line) = lines.last().copied() {
            measured.unwraps.push(Excess { key: path.clone(), path: path.clone(), line, size: lines.len() });
        }
    }
    measured
}

/// Functions outside tests that are too long: name, line, and length; of two with one name the longer.
fn long_functions(file: &RustFile) -> BTreeMap<String, (usize, usize)> {
    let mut functions = Functions { file, scope: Vec::new(), long: BTreeMap::new() };
    functions.visit_file(&file.syntax);
    functions.long
}

struct Functions<'a> {
    file: &'a RustFile,
    scope: Vec<String>,
    long: BTreeMap<String, (usize, usize)>,
}

impl Functions<'_> {
    fn function(&mut self, signature: &syn::Signature, end: usize) {
        let line = signature.span().start().line;
        let size = end + 1 - line;
        if size > FUNCTION_LINES_MAX && !self.file.is_test(line) {
            self.scope.push(signature.ident.to_string());
            let longest = self.long.entry(self.scope.join("::")).or_insert((line, size));
            self.scope.pop();
            if size > longest.1 {
                *longest = (line, size);
            }
        }
    }

    fn inside(&mut self, name: String, visit: impl FnOnce(&mut Self)) {
        self.scope.push(name);
        visit(self);
        self.scope.pop();
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.function(&function.sig, function.block.span().end().line);
        self.inside(function.sig.ident.to_string(), |this| visit::visit_item_fn(this, function));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.function(&function.sig, function.block.span().end().line);
        self.inside(function.sig.ident.to_string(), |this| visit::visit_impl_item_fn(this, function));
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(block) = &function.default {
            self.function(&function.sig, block.span().end().line);
        }
        self.inside(function.sig.ident.to_string(), |this| visit::visit_trait_item_fn(this, function));
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.inside(module.ident.to_string(), |this| visit::visit_item_mod(this, module));
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.inside(item.ident.to_string(), |this| visit::visit_item_trait(this, item));
    }

    fn visit_item_impl(&mut self, block: &'ast ItemImpl) {
        let name = match &*block.self_ty {
            Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.inside(name.unwrap_or_else(|| "impl".to_owned()), |this| visit::visit_item_impl(this, block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(source: &str, ratchet: &str) -> Tree {
        Tree::from_texts(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"k\"]\n"),
            ("k/Cargo.toml", "[package]\nname = \"k\"\n"),
            ("k/src/lib.rs", source),
            (RATCHET, ratchet),
        ])
    }

    fn found(source: &str, ratchet: &str) -> Vec<(String, usize, String)> {
        let tree = tree(source, ratchet);
        let findings = check(&tree, &Rust::parse(&tree)).unwrap();
        findings.into_iter().map(|it| (it.path, it.line, it.what)).collect()
    }

    fn long(signature: &str, lines: usize) -> String {
        format!("{signature} {{\n{}}}\n", "    f();\n".repeat(lines - 2))
    }

    #[test]
    fn long_functions_are_found_unless_they_are_tests() {
        let source = format!(
            "/// Doc.\n#[inline]\n{}impl K {{\n{}}}\n#[test]\n{}",
            long("pub fn a()", 71),
            long("fn b()", 70),
            long("fn c()", 90)
        );
        assert_eq!(found(&source, ""), [("k/src/lib.rs".into(), 3, "a has 71 lines, 70 are allowed".into())]);
        assert_eq!(found(&source, "[functions]\n\"k/src/lib.rs a\" = 71\n"), []);
    }

    #[test]
    fn the_ratchet_only_turns_one_way() {
        let source = long("fn a()", 80);
        let entry = |size| format!("[functions]\n\"k/src/lib.rs a\" = {size}\n");
        assert_eq!(found(&source, &entry(79))[0].2, "a has 80 lines, 79 are allowed");
        assert_eq!(
            found(&source, &entry(81)),
            [(RATCHET.into(), 2, "k/src/lib.rs a has shrunk from 81 to 80".into())]
        );
        let stale = found("", &entry(81));
        assert_eq!(stale, [(RATCHET.into(), 2, "k/src/lib.rs a is within its limit now or gone".into())]);
    }

    #[test]
    fn unwraps_outside_tests_are_counted() {
        let source = "fn a() { b.unwrap(); }\nfn c() { m!(d.unwrap()) }\n#[cfg(test)]\nmod tests { fn e() { f.unwrap(); } }\n";
        assert_eq!(found(source, "")[0].1, 2);
        assert_eq!(found(source, "[unwraps]\n\"k/src/lib.rs\" = 2\n"), []);
    }

    #[test]
    fn long_files_are_found_and_an_update_allows_them() {
        let source = "//\n".repeat(801);
        assert_eq!(found(&source, "").len(), 1);
        let tree = tree(&source, "");
        let measured = measure(&tree, &Rust::parse(&tree));
        let ratchet = Ratchet {
            files: measured.files.into_iter().map(|it| (it.key, it.size)).collect(),
            ..Ratchet::default()
        };
        assert_eq!(found(&source, &render(&ratchet)), []);
    }
}
