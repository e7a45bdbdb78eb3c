//! Which top-level modules of its crate a file names, and on which lines.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{
    Attribute, ImplItem, Item, ItemMod, ItemUse, Macro, Meta, Path, UseTree, VisRestricted, Visibility,
};

use crate::rust;

/// A path in the source, seen from the root of the crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Module the path stands in, from the root of the crate.
    pub from: Vec<String>,
    /// What it names, from the root of the crate. Empty with `glob`: everything in the root.
    pub target: Vec<String>,
    /// Line of the first name of `target` (of the `*` where there is none).
    pub line: usize,
    /// Whether the path ends in `*`.
    pub glob: bool,
    /// For a `use`: the name it brings in.
    pub imported: Option<String>,
    /// Whether it is a `use` with a visibility: `pub`, `pub(crate)`, ….
    pub reexport: bool,
}

/// A path as written: names and their lines.
type Written = Vec<(String, usize)>;

/// The references in a file that is the module `names` of its crate; what is compiled for tests only is left out.
pub fn references(file: &syn::File, names: &[String]) -> Vec<Reference> {
    let mut collect = Collect { here: names.to_vec(), found: Vec::new() };
    collect.visit_file(file);
    collect.found
}

struct Collect {
    here: Vec<String>,
    found: Vec<Reference>,
}

impl Collect {
    /// Path from the root of the crate, or nothing when it leads out of the crate or stays in this module.
    fn resolve(&self, written: &[(String, usize)]) -> Option<Written> {
        let mut base = &self.here[..];
        let mut rest = written;
        let mut relative = true;
        while let Some((name, _)) = rest.first() {
            match name.as_str() {
                "crate" => base = &[],
                "self" => {}
                "super" => base = &base[..base.len().checked_sub(1)?],
                _ => break,
            }
            relative = false;
            rest = &rest[1..];
        }
        // A path without such a beginning leads to a top-level module only from the root.
        if !base.is_empty() || relative && rest.len() < 2 {
            return None;
        }
        Some(rest.to_vec())
    }

    fn path(&mut self, written: &[(String, usize)]) {
        let Some(target) = self.resolve(written) else { return };
        if let Some((_, line)) = target.first() {
            self.add(target.clone(), *line, false, None, false);
        }
    }

    fn add(&mut self, target: Written, line: usize, glob: bool, imported: Option<String>, reexport: bool) {
        let target = target.into_iter().map(|(name, _)| name).collect();
        self.found.push(Reference { from: self.here.clone(), target, line, glob, imported, reexport });
    }

    fn use_tree(&mut self, tree: &UseTree, prefix: &mut Written, public: bool) {
        let name = |ident: &proc_macro2::Ident| (text(ident), ident.span().start().line);
        match tree {
            UseTree::Path(path) => {
                prefix.push(name(&path.ident));
                self.use_tree(&path.tree, prefix, public);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, prefix, public)),
            UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                // `use a::*` in the root: the star counts as a name, so that the path is long enough to be one.
                let written = [prefix.as_slice(), &[("*".to_owned(), line)]].concat();
                let Some(mut target) = self.resolve(&written) else { return };
                target.pop();
                let line = target.first().map_or(line, |(_, line)| *line);
                self.add(target, line, true, None, public);
            }
            UseTree::Name(leaf) => self.use_leaf(prefix, name(&leaf.ident), None, public),
            UseTree::Rename(leaf) => {
                self.use_leaf(prefix, name(&leaf.ident), Some(text(&leaf.rename)), public)
            }
        }
    }

    fn use_leaf(&mut self, prefix: &Written, leaf: (String, usize), rename: Option<String>, public: bool) {
        let mut written = prefix.clone();
        // `a::{self}` names `a`.
        if leaf.0 != "self" || written.is_empty() {
            written.push(leaf);
        }
        let imported = rename.or_else(|| written.last().map(|(name, _)| name.clone()));
        let Some(target) = self.resolve(&written) else { return };
        if let Some((_, line)) = target.first() {
            self.add(target.clone(), *line, false, imported, public);
        }
    }

    /// Paths in tokens that nobody has parsed: what is inside macro calls and attributes.
    fn tokens(&mut self, tokens: TokenStream, strings: bool) {
        let mut written: Written = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path(&std::mem::take(&mut written));
                    }
                    written.push((text(&ident), ident.span().start().line));
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    // In a macro `crate::{a, b}` may be the body of a `use`.
                    let inner = if colons == 2 { prefixed(&written, group.stream()) } else { Vec::new() };
                    inner.iter().for_each(|path| self.path(path));
                    self.path(&std::mem::take(&mut written));
                    self.tokens(group.stream(), strings);
                    colons = 0;
                }
                other => {
                    self.path(&std::mem::take(&mut written));
                    colons = 0;
                    if let (true, TokenTree::Literal(literal)) = (strings, &other) {
                        self.string(literal);
                    }
                }
            }
        }
        self.path(&written);
    }

    /// A path in a string of an attribute: `#[serde(with = "crate::codec")]`.
    fn string(&mut self, literal: &proc_macro2::Literal) {
        let line = literal.span().start().line;
        let Ok(string) = syn::parse_str::<syn::LitStr>(&literal.to_string()) else { return };
        if let Ok(path) = string.parse::<Path>() {
            let written: Written = path.segments.iter().map(|segment| (text(&segment.ident), line)).collect();
            self.path(&written);
        }
    }
}

/// The paths `prefix::x` for every `x` that stands first in an element of a group.
fn prefixed(prefix: &Written, group: TokenStream) -> Vec<Written> {
    let (mut paths, mut first) = (Vec::new(), true);
    for token in group {
        match token {
            TokenTree::Ident(ident) if first => {
                let name = (text(&ident), ident.span().start().line);
                paths.push([prefix.as_slice(), &[name]].concat());
                first = false;
            }
            TokenTree::Punct(punct) if punct.as_char() == ',' => first = true,
            _ => first = false,
        }
    }
    paths
}

fn text(ident: &proc_macro2::Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

impl<'ast> Visit<'ast> for Collect {
    fn visit_item(&mut self, item: &'ast Item) {
        if !rust::is_test_only(rust::attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if !rust::is_test_only(rust::impl_attributes(item)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.here.push(text(&module.ident));
        visit::visit_item_mod(self, module);
        self.here.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            let public = !matches!(item.vis, Visibility::Inherited);
            self.use_tree(&item.tree, &mut Vec::new(), public);
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            let name = |segment: &syn::PathSegment| (text(&segment.ident), segment.ident.span().start().line);
            let written: Written = path.segments.iter().map(name).collect();
            self.path(&written);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone(), false);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        self.visit_path(attribute.path());
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone(), true);
        }
    }

    // `pub(in crate::a)` names who may see an item, not what the item needs.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, module: &[&str]) -> Vec<(String, usize)> {
        let names: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        let file = syn::parse_file(text).unwrap();
        references(&file, &names).into_iter().map(|it| (it.target.join("::"), it.line)).collect()
    }

    fn expect(text: &str, module: &[&str], expected: &[(&str, usize)]) {
        let expected: Vec<_> = expected.iter().map(|(path, line)| ((*path).to_owned(), *line)).collect();
        assert_eq!(found(text, module), expected, "{text}");
    }

    #[test]
    fn every_spelling_of_a_path_is_found() {
        expect("use crate::b::X;", &["a"], &[("b::X", 1)]);
        expect(
            "use crate::{\n    b,\n    c::{self, Y as Z},\n};",
            &["a"],
            &[("b", 2), ("c", 3), ("c::Y", 3)],
        );
        expect("use super::b::*;", &["a"], &[("b", 1)]);
        expect("use super::{super::b, c};", &["a", "x"], &[("b", 1)]);
        expect(
            "fn f() {\n    crate::b::g(super::c::H::<crate::d::T>::new());\n}",
            &["a"],
            &[("b::g", 2), ("c::H::new", 2), ("d::T", 2)],
        );
        expect("mod x {\n    use super::super::b::Y;\n    use super::Z;\n}", &["a"], &[("b::Y", 2)]);
        expect("impl crate::b::T for X {}", &["a"], &[("b::T", 1)]);
        expect("mod b;\nfn f() { b::g() }", &[], &[("b::g", 2)]);
    }

    #[test]
    fn paths_in_macros_and_attributes_are_found() {
        expect(
            "fn f() {\n    println!(\"{}\",\n        crate::b::g(super::c::H));\n}",
            &["a"],
            &[("b::g", 3), ("c::H", 3)],
        );
        expect("macro_rules! m { () => { $crate::b::g() } }", &["a"], &[("b::g", 1)]);
        expect("x! { use crate::{b, c::D}; }", &["a"], &[("b", 1), ("c", 1)]);
        expect("#[serde(with = \"crate::b\")]\nstruct S;", &["a"], &[("b", 1)]);
        expect("#[derive(crate::b::D)]\nstruct S;", &["a"], &[("b::D", 1)]);
    }

    #[test]
    fn comments_strings_tests_and_other_crates_are_not_references() {
        expect("// crate::b::X\n/// [`crate::b::X`]\nfn f() { \"crate::b::X\"; }", &["a"], &[]);
        expect(
            "#[cfg(test)]\nmod tests { use crate::b::X; }\n#[test]\nfn t() { crate::b::g() }",
            &["a"],
            &[],
        );
        expect("use std::io;\nuse ::b::X;\nfn f() { b::g() }", &["a"], &[]);
        expect("pub(in crate::b) fn f() {}\npub(crate) fn g() {}", &["a"], &[]);
    }
}
