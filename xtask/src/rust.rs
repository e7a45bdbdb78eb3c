//! Parsed Rust files, the module tree they form, and which parts of them are compiled for tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use proc_macro2::TokenStream;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, Meta};

use crate::finding::Finding;
use crate::tree::{Member, Tree};

/// A parsed file.
pub struct RustFile {
    /// Its items.
    pub syntax: syn::File,
    /// All its tokens: unlike `syntax`, with those inside macro calls.
    pub tokens: TokenStream,
    /// Whether all of it is compiled for tests only.
    pub test_file: bool,
    test_lines: Vec<RangeInclusive<usize>>,
}

impl RustFile {
    /// Whether the line (from 1) is compiled for tests only.
    pub fn is_test(&self, line: usize) -> bool {
        self.test_file || self.test_lines.iter().any(|lines| lines.contains(&line))
    }
}

/// The file a crate (library, program, test) begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Name of the package.
    pub package: String,
    /// The file.
    pub path: String,
    /// Whether it is built for tests only (`tests/*.rs`, `benches/*.rs`, the crate of whole-system tests).
    pub test: bool,
}

/// A file as a module of a crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Names from the root of the crate; empty for the root itself.
    pub names: Vec<String>,
    /// The file.
    pub path: String,
    /// Whether it is compiled for tests only.
    pub test: bool,
}

/// All Rust files and the crates they form.
pub struct Rust {
    /// Parsed files by path.
    pub files: BTreeMap<String, RustFile>,
    /// The crates, each with its modules.
    pub crates: Vec<(Root, Vec<Module>)>,
    /// Files that do not parse or that belong to no crate.
    pub findings: Vec<Finding>,
}

impl Rust {
    /// Parses every file of the tree and follows the `mod` declarations from the roots of the packages.
    pub fn parse(tree: &Tree) -> Self {
        let (mut files, mut findings) = (BTreeMap::new(), Vec::new());
        for (path, text) in tree.texts.iter().filter(|(path, _)| path.ends_with(".rs")) {
            match parse_file(text) {
                Ok(file) => drop(files.insert(path.clone(), file)),
                Err(error) => {
                    let line = error.span().start().line;
                    findings.push(Finding::new(path, line, format!("does not parse: {error}"), "repair it"));
                }
            }
        }
        let roots: Vec<_> = tree.members.iter().flat_map(|member| roots(tree, member)).collect();
        let mut crates = Vec::new();
        for root in roots {
            let mut walk = Walk { files: &files, modules: Vec::new() };
            walk.file(&root.path, directory_of(&root.path), &[], root.test);
            crates.push((root, walk.modules));
        }
        let mut reached: BTreeMap<String, bool> = BTreeMap::new();
        for module in crates.iter().flat_map(|(_, modules)| modules) {
            let test = reached.entry(module.path.clone()).or_insert(true);
            *test &= module.test;
        }
        for (path, file) in &mut files {
            file.test_file = reached.get(path).copied().unwrap_or(false);
        }
        for member in &tree.members {
            let sources = format!("{}/src/", member.directory);
            for path in files.keys().filter(|path| path.starts_with(&sources) && !reached.contains_key(*path))
            {
                findings.push(Finding::new(
                    path,
                    1,
                    "belongs to no module",
                    "declare it with `mod`, or delete it",
                ));
            }
        }
        Self { files, crates, findings }
    }
}

fn parse_file(text: &str) -> syn::Result<RustFile> {
    let syntax = syn::parse_file(text)?;
    let tokens = text.strip_prefix('\u{feff}').unwrap_or(text).parse().map_err(syn::Error::from)?;
    let mut tests = TestLines::default();
    tests.visit_file(&syntax);
    Ok(RustFile { syntax, tokens, test_file: false, test_lines: tests.0 })
}

/// The roots of a package: where Cargo looks by itself, and what its manifest names.
fn roots(tree: &Tree, member: &Member) -> Vec<Root> {
    let directory = &member.directory;
    let mut paths: BTreeSet<String> = BTreeSet::new();
    for name in ["src/lib.rs", "src/main.rs", "build.rs"] {
        paths.insert(format!("{directory}/{name}"));
    }
    for kind in ["src/bin", "examples", "tests", "benches"] {
        let prefix = format!("{directory}/{kind}");
        for path in tree.below(&prefix) {
            let rest = &path[prefix.len() + 1..];
            if rest.ends_with(".rs")
                && (!rest.contains('/') || rest.matches('/').count() == 1 && rest.ends_with("/main.rs"))
            {
                paths.insert(path.clone());
            }
        }
    }
    let named =
        ["lib", "bin", "test", "bench", "example"].iter().filter_map(|kind| member.manifest.get(*kind));
    let tables = named.flat_map(|value| match value {
        toml::Value::Array(values) => values.iter().collect(),
        value => vec![value],
    });
    for path in tables.filter_map(|table| table.get("path")?.as_str()) {
        paths.insert(format!("{directory}/{path}"));
    }
    paths.retain(|path| tree.texts.contains_key(path));
    let whole_package_is_test = directory == "tests";
    let is_test = |path: &str| {
        ["tests", "benches"].iter().any(|kind| path.starts_with(&format!("{directory}/{kind}/")))
    };
    let root = |path: String| Root {
        package: member.name.clone(),
        test: whole_package_is_test || is_test(&path),
        path,
    };
    paths.into_iter().map(root).collect()
}

/// Follows `mod` declarations.
struct Walk<'a> {
    files: &'a BTreeMap<String, RustFile>,
    modules: Vec<Module>,
}

impl Walk<'_> {
    /// Takes the file at `path` in; files of its child modules are in `directory`.
    fn file(&mut self, path: &str, directory: String, names: &[String], test: bool) {
        // A file that names itself with `#[path]` must not be followed for ever.
        let known = |module: &Module| module.path == path && module.names == names;
        let Some(file) = self.files.get(path) else { return };
        if names.len() > 32 || self.modules.iter().any(known) {
            return;
        }
        self.modules.push(Module { names: names.to_vec(), path: path.to_owned(), test });
        self.items(&file.syntax.items, path, &directory, names, test);
    }

    fn items(&mut self, items: &[Item], path: &str, directory: &str, names: &[String], test: bool) {
        for item in items {
            let Item::Mod(module) = item else { continue };
            let name = module.ident.to_string().trim_start_matches("r#").to_owned();
            let test = test || is_test_only(&module.attrs);
            let names = [names, std::slice::from_ref(&name)].concat();
            if let Some((_, items)) = &module.content {
                self.items(items, path, &join(directory, &name), &names, test);
            } else if let Some(other) = path_attribute(&module.attrs) {
                let other = normalize(&join(&directory_of(path), &other));
                self.file(&other, directory_of(&other), &names, test);
            } else {
                let children = join(directory, &name);
                self.file(&format!("{children}.rs"), children.clone(), &names, test);
                self.file(&format!("{children}/mod.rs"), children, &names, test);
            }
        }
    }
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) => Some(path.value()),
            _ => None,
        },
        _ => None,
    })
}

/// The directory a path is in, empty for the root of the tree.
pub fn directory_of(path: &str) -> String {
    path.rsplit_once('/').map(|(directory, _)| directory.to_owned()).unwrap_or_default()
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Takes `.` and `..` out of a path; `..` above the root leads nowhere and is kept.
pub fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

/// Whether attributes confine their item to tests: `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
pub fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.segments.last().is_some_and(|last| last.ident == "test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args().is_ok_and(|meta| implies_test(&meta))
        }
        Meta::List(list) => list.path.segments.last().is_some_and(|last| last.ident == "test"),
        Meta::NameValue(_) => false,
    })
}

fn implies_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else { return condition.path().is_ident("test") };
    let parts = list.parse_args_with(syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated);
    match parts {
        Ok(parts) if list.path.is_ident("all") => parts.iter().any(implies_test),
        Ok(parts) if list.path.is_ident("any") => !parts.is_empty() && parts.iter().all(implies_test),
        _ => false,
    }
}

/// The attributes of an item.
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The attributes of an item of an `impl`.
pub fn impl_attributes(item: &ImplItem) -> &[Attribute] {
    match item {
        ImplItem::Const(item) => &item.attrs,
        ImplItem::Fn(item) => &item.attrs,
        ImplItem::Type(item) => &item.attrs,
        ImplItem::Macro(item) => &item.attrs,
        _ => &[],
    }
}

/// Collects the lines of items that are compiled for tests only.
#[derive(Default)]
struct TestLines(Vec<RangeInclusive<usize>>);

impl<'ast> Visit<'ast> for TestLines {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test_only(attributes(item)) {
            self.0.push(item.span().start().line..=item.span().end().line);
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if is_test_only(impl_attributes(item)) {
            self.0.push(item.span().start().line..=item.span().end().line);
        } else {
            visit::visit_impl_item(self, item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_where_the_compiler_finds_them() {
        let tree = Tree::from_texts(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"k\"]\n"),
            ("k/Cargo.toml", "[package]\nname = \"k\"\n"),
            (
                "k/src/lib.rs",
                "mod a;\n#[path = \"other/b.rs\"] mod b;\nmod c { mod d; }\n#[cfg(test)] mod t;\n",
            ),
            ("k/src/main.rs", "mod a;\n"),
            ("k/src/a.rs", "mod e;\n#[cfg(all(test, unix))] mod checks;\n"),
            ("k/src/a/e.rs", ""),
            ("k/src/a/checks.rs", ""),
            ("k/src/other/b.rs", "mod f;"),
            ("k/src/other/f.rs", ""),
            ("k/src/c/d/mod.rs", ""),
            ("k/src/t.rs", ""),
            ("k/src/lost.rs", ""),
            ("k/tests/whole.rs", ""),
        ]);
        let rust = Rust::parse(&tree);
        let (root, modules) = &rust.crates[0];
        assert_eq!(root.path, "k/src/lib.rs");
        let names: Vec<_> =
            modules.iter().map(|module| (module.names.join("::"), module.path.as_str())).collect();
        let names: Vec<_> = names.iter().map(|(name, path)| (name.as_str(), *path)).collect();
        assert_eq!(
            names,
            [
                ("", "k/src/lib.rs"),
                ("a", "k/src/a.rs"),
                ("a::e", "k/src/a/e.rs"),
                ("a::checks", "k/src/a/checks.rs"),
                ("b", "k/src/other/b.rs"),
                ("b::f", "k/src/other/f.rs"),
                ("c::d", "k/src/c/d/mod.rs"),
                ("t", "k/src/t.rs"),
            ]
        );
        let tests: Vec<_> =
            rust.files.iter().filter(|(_, file)| file.test_file).map(|(path, _)| path).collect();
        assert_eq!(tests, ["k/src/a/checks.rs", "k/src/t.rs", "k/tests/whole.rs"]);
        assert_eq!(rust.findings.len(), 1);
        assert_eq!(rust.findings[0].path, "k/src/lost.rs");
    }

    #[test]
    fn lines_of_test_items_are_known() {
        let file = parse_file("fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n").unwrap();
        assert_eq!(
            (1..=6).map(|line| file.is_test(line)).collect::<Vec<_>>(),
            [false, true, true, true, true, false]
        );
    }

    #[test]
    fn a_condition_that_holds_outside_tests_is_not_a_test() {
        let file =
            parse_file("#[cfg(any(test, feature = \"x\"))]\nfn a() {}\n#[cfg(not(test))]\nfn b() {}\n")
                .unwrap();
        assert!((1..=4).all(|line| !file.is_test(line)));
    }
}
