//! Import cycles among the top-level modules of a crate.
//!
//! The root of a crate is a module of its own here: who uses something that `lib.rs` or `main.rs` defines depends on
//! the root. A `pub use` in the root only hands names on, so it does not make the root depend on anything; a name that
//! the root has from a module counts as that module.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use syn::Item;

use crate::finding::Finding;
use crate::references::{Reference, references};
use crate::rust::{Module, Root, Rust};

/// The node of the root file in the graph (no module can have this name).
const ROOT: &str = "(root)";

/// Where a module names another for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: String,
    line: usize,
}

/// Who names whom.
type Graph = BTreeMap<String, BTreeMap<String, Place>>;

/// One shortest cycle for every knot of modules that need each other, in every crate that is not a test.
pub fn check(rust: &Rust) -> Vec<Finding> {
    rust.crates
        .iter()
        .filter(|(root, _)| !root.test)
        .flat_map(|(root, modules)| check_crate(rust, root, modules))
        .collect()
}

fn check_crate(rust: &Rust, root: &Root, modules: &[Module]) -> Vec<Finding> {
    let mut found: Vec<(&str, Reference)> = Vec::new();
    for module in modules.iter().filter(|module| !module.test) {
        let Some(file) = rust.files.get(&module.path) else { continue };
        found
            .extend(references(&file.syntax, &module.names).into_iter().map(|it| (module.path.as_str(), it)));
    }
    let mut tops: BTreeSet<String> =
        modules.iter().filter_map(|module| module.names.first().cloned()).collect();
    tops.extend(found.iter().filter_map(|(_, reference)| reference.from.first().cloned()));
    let names = Names::new(rust, modules, tops, &found);
    let (mut graph, mut findings) = (Graph::new(), Vec::new());
    for (path, reference) in &found {
        let from = reference.from.first().map_or(ROOT, String::as_str);
        if reference.target.is_empty() && from != ROOT {
            let what = format!(
                "{} takes in everything from the root, which hides its arrows",
                reference.from.join("::")
            );
            findings.push(Finding::new(path, reference.line, what, "name what it uses"));
        }
        let Some(to) = names.module_of(reference) else { continue };
        let place = || Place { path: (*path).to_owned(), line: reference.line };
        if from != to {
            graph.entry(from.to_owned()).or_default().entry(to.to_owned()).or_insert_with(place);
        }
    }
    findings.extend(cycles(&graph).iter().map(|cycle| describe(&graph, root, cycle)));
    findings
}

/// What the names that one can reach from the root stand for.
struct Names {
    tops: BTreeSet<String>,
    /// Names that the root takes in, with the module they come from; nothing for other crates' names.
    handed_on: BTreeMap<String, Option<String>>,
}

impl Names {
    fn new(rust: &Rust, modules: &[Module], tops: BTreeSet<String>, found: &[(&str, Reference)]) -> Self {
        let mut handed_on = BTreeMap::new();
        let root = modules.iter().find(|module| module.names.is_empty());
        let root_items = root.and_then(|root| rust.files.get(&root.path)).map(|file| &file.syntax.items[..]);
        // Names from other crates first: they are overwritten by those that lead into a module.
        for item in root_items.unwrap_or_default() {
            if let Item::Use(item) = item {
                imported_names(&item.tree, &mut |name| drop(handed_on.insert(name, None)));
            }
        }
        for (_, reference) in found.iter().filter(|(_, reference)| reference.from.is_empty()) {
            let Some(module) = reference.target.first().filter(|name| tops.contains(*name)) else { continue };
            if let Some(name) = &reference.imported {
                handed_on.insert(name.clone(), Some(module.clone()));
            }
            if reference.glob {
                let of_module = |it: &&Module| it.names.first() == Some(module);
                for file in modules.iter().filter(of_module).filter_map(|it| rust.files.get(&it.path)) {
                    for name in file.syntax.items.iter().filter_map(item_name) {
                        handed_on.insert(name, Some(module.clone()));
                    }
                }
            }
        }
        // `#[macro_export]` puts a macro into the root, wherever it is written.
        for module in modules.iter().filter(|module| !module.names.is_empty()) {
            let Some(file) = rust.files.get(&module.path) else { continue };
            for item in &file.syntax.items {
                let Item::Macro(item) = item else { continue };
                let exported = item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"));
                if let (true, Some(name)) = (exported, &item.ident) {
                    handed_on.insert(name.to_string(), module.names.first().cloned());
                }
            }
        }
        Self { tops, handed_on }
    }

    /// The node a reference leads to, if that makes its module depend on it.
    fn module_of<'a>(&'a self, reference: &'a Reference) -> Option<&'a str> {
        let first = reference.target.first()?;
        if reference.from.is_empty() {
            return (!reference.reexport && self.tops.contains(first)).then_some(first.as_str());
        }
        if self.tops.contains(first) {
            return Some(first);
        }
        match self.handed_on.get(first) {
            Some(module) => module.as_deref(),
            None => Some(ROOT),
        }
    }
}

fn imported_names(tree: &syn::UseTree, take: &mut impl FnMut(String)) {
    match tree {
        syn::UseTree::Path(path) => imported_names(&path.tree, take),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| imported_names(tree, take)),
        syn::UseTree::Name(leaf) => take(leaf.ident.to_string()),
        syn::UseTree::Rename(leaf) => take(leaf.rename.to_string()),
        _ => {}
    }
}

fn item_name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// A shortest cycle of every strongly connected component; each begins with the first module by name.
fn cycles(graph: &Graph) -> Vec<Vec<String>> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    let mut cycles = Vec::new();
    for start in graph.keys() {
        if done.contains(start.as_str()) {
            continue;
        }
        let below = reachable(graph, start);
        let knot: Vec<&str> =
            below.into_iter().filter(|other| reachable(graph, other).contains(start.as_str())).collect();
        if let Some(shortest) =
            knot.iter().filter_map(|node| shortest_cycle(graph, node)).min_by_key(Vec::len)
        {
            cycles.push(shortest);
        }
        done.extend(knot);
    }
    cycles
}

/// Nodes at the end of at least one arrow from `start`; `start` itself only when it is on a cycle.
fn reachable<'a>(graph: &'a Graph, start: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut queue: VecDeque<&str> =
        graph.get(start).into_iter().flatten().map(|(to, _)| to.as_str()).collect();
    while let Some(node) = queue.pop_front() {
        if let Some((node, next)) = found.insert(node).then(|| graph.get_key_value(node)).flatten() {
            found.insert(node);
            queue.extend(next.keys().map(String::as_str));
        }
    }
    found
}

/// A shortest way from `start` back to itself, without the repeated end.
fn shortest_cycle(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut ways: VecDeque<Vec<&str>> = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for to in graph.get(*way.last()?).into_iter().flatten().map(|(to, _)| to.as_str()) {
            if to == start {
                return Some(way.into_iter().map(str::to_owned).collect());
            }
            if seen.insert(to) {
                ways.push_back([way.as_slice(), &[to]].concat());
            }
        }
    }
    None
}

fn describe(graph: &Graph, root: &Root, cycle: &[String]) -> Finding {
    let mut what = format!("import cycle in {} ({})", root.package, root.path);
    let mut first: Option<&Place> = None;
    for (from, to) in cycle.iter().zip(cycle.iter().cycle().skip(1)) {
        let Some(place) = graph.get(from).and_then(|next| next.get(to)) else { continue };
        what += &format!(", {from} -> {to} at {}:{}", place.path, place.line);
        first.get_or_insert(place);
    }
    let (path, line) = first.map_or((root.path.as_str(), 1), |place| (place.path.as_str(), place.line));
    Finding::new(
        path,
        line,
        what,
        "move what both need into a module below them, or hand it in as an argument",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Tree;

    const WORKSPACE: [(&str, &str); 2] =
        [("Cargo.toml", "[workspace]\nmembers = [\"k\"]\n"), ("k/Cargo.toml", "[package]\nname = \"k\"\n")];

    fn found(files: &[(&str, &str)]) -> Vec<Finding> {
        check(&Rust::parse(&Tree::from_texts(&[&WORKSPACE, files].concat())))
    }

    #[test]
    fn a_cycle_in_a_crate_on_disk_is_found() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("k/src/b")).unwrap();
        let sources = [
            ("k/src/lib.rs", "mod a;\nmod b;\n"),
            ("k/src/a.rs", "//! A.\n\nuse crate::b;\n"),
            ("k/src/b.rs", "mod deep;\n"),
            ("k/src/b/deep.rs", "fn f() {\n    super::super::a::g()\n}\n"),
        ];
        for (path, text) in WORKSPACE.iter().chain(&sources) {
            std::fs::write(directory.path().join(path), text).unwrap();
        }
        let findings = check(&Rust::parse(&Tree::load(directory.path()).unwrap()));
        assert_eq!(findings.len(), 1);
        assert_eq!(
            findings[0].what,
            "import cycle in k (k/src/lib.rs), a -> b at k/src/a.rs:3, b -> a at k/src/b/deep.rs:2"
        );
        assert_eq!((findings[0].path.as_str(), findings[0].line), ("k/src/a.rs", 3));
    }

    #[test]
    fn a_cycle_is_found_in_every_spelling() {
        let spellings = [
            "use crate::b::X;",
            "use crate::{c, b::{X, Y}};",
            "use super::b;",
            "use super::{c, b as d};",
            "fn f() { crate::b::g(); }",
            "fn f() -> super::b::T { todo() }",
            "fn f() { log!(\"{}\", crate::b::g()); }",
            "mod inner { use super::super::b::X; }",
            "use crate::Handed;",
            "use crate::Globbed;",
        ];
        let root = "mod a; mod b; mod c;\npub use b::Handed;\npub use crate::b::*;\n";
        for spelling in spellings {
            let b = "use crate::a::Y;\npub struct Handed;\npub struct Globbed;\n";
            let findings = found(&[
                ("k/src/lib.rs", root),
                ("k/src/a.rs", spelling),
                ("k/src/b.rs", b),
                ("k/src/c.rs", ""),
            ]);
            assert_eq!(findings.len(), 1, "{spelling}");
            assert!(
                findings[0].what.ends_with("a -> b at k/src/a.rs:1, b -> a at k/src/b.rs:1"),
                "{spelling}: {findings:?}"
            );
        }
    }

    #[test]
    fn the_shortest_cycle_of_every_knot_is_reported() {
        let findings = found(&[
            ("k/src/lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
            ("k/src/a.rs", "use crate::b;"),
            ("k/src/b.rs", "use crate::{c, a};"),
            ("k/src/c.rs", "use crate::{a, d};"),
            ("k/src/d.rs", "\nuse crate::e;"),
            ("k/src/e.rs", "use crate::d;"),
        ]);
        let what: Vec<_> = findings.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(
            what,
            [
                "import cycle in k (k/src/lib.rs), a -> b at k/src/a.rs:1, b -> a at k/src/b.rs:1",
                "import cycle in k (k/src/lib.rs), d -> e at k/src/d.rs:2, e -> d at k/src/e.rs:1",
            ]
        );
    }

    #[test]
    fn a_crate_without_cycles_passes() {
        let findings = found(&[
            ("k/src/lib.rs", "mod a; mod b; mod c;\npub use a::X;\nuse std::io::Error;\nfn f() { a::g() }"),
            ("k/src/a.rs", "use crate::b::Y;\nuse crate::c;\n#[cfg(test)]\nmod tests { use super::*; }"),
            (
                "k/src/b.rs",
                "use crate::c::Z;\nuse crate::Error;\n// crate::a\n#[cfg(test)]\nmod tests { use crate::a; }",
            ),
            ("k/src/c.rs", "mod d;\nfn f() { \"crate::a::X\"; }"),
            ("k/src/c/d.rs", "use super::Z;\nuse crate::c::Z as W;"),
        ]);
        assert_eq!(findings, []);
    }

    #[test]
    fn a_constant_taken_from_the_root_is_a_cycle() {
        let findings = found(&[
            ("k/src/main.rs", "mod a;\nconst N: u32 = 1;\nfn main() { a::f() }"),
            ("k/src/a.rs", "use crate::N;"),
        ]);
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].what.contains("(root) -> a at k/src/main.rs:3, a -> (root) at k/src/a.rs:1"),
            "{findings:?}"
        );
        let findings = found(&[
            ("k/src/main.rs", "mod a;\nuse a::f;\nconst N: u32 = 1;\nfn main() { f() }"),
            ("k/src/a.rs", "fn g() { crate::N }"),
        ]);
        assert_eq!(findings.len(), 1, "{findings:?}");
    }

    #[test]
    fn library_and_program_have_graphs_of_their_own() {
        let findings = found(&[
            ("k/src/lib.rs", "mod a;"),
            ("k/src/main.rs", "mod b;"),
            ("k/src/a.rs", "use k::b;"),
            ("k/src/b.rs", "use k::a;"),
        ]);
        assert_eq!(findings, []);
    }

    #[test]
    fn taking_in_the_whole_root_is_refused() {
        let findings = found(&[("k/src/lib.rs", "mod a;"), ("k/src/a.rs", "\nuse super::*;")]);
        assert_eq!((findings.len(), findings[0].line), (1, 2));
    }
}
