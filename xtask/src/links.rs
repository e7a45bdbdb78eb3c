//! Links of the documents lead to files that exist, and the `make` targets of the README are in the Makefile.

use std::ops::Range;

use pulldown_cmark::{Event, Parser, Tag, TagEnd};

use crate::finding::Finding;
use crate::rust::{directory_of, normalize};
use crate::tree::Tree;

/// Broken links and unknown targets.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let documents = tree.texts.iter().filter(|(path, _)| path.ends_with(".md"));
    let mut findings: Vec<Finding> = documents.flat_map(|(path, text)| links(tree, path, text)).collect();
    if let Some(readme) = tree.texts.get("README.md") {
        findings.extend(make_targets(tree, readme));
    }
    findings
}

fn line_at(text: &str, range: &Range<usize>) -> usize {
    text.bytes().take(range.start).filter(|byte| *byte == b'\n').count() + 1
}

fn links(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (event, range) in Parser::new(text).into_offset_iter() {
        let (Event::Start(Tag::Link { dest_url, .. }) | Event::Start(Tag::Image { dest_url, .. })) = event
        else {
            continue;
        };
        let target = dest_url.split(['#', '?']).next().unwrap_or_default();
        let has_scheme = target.split('/').next().is_some_and(|first| first.contains(':'));
        if target.is_empty() || has_scheme {
            continue;
        }
        // A link that begins with `/` starts at the root of the repository, as web views of repositories have it.
        let from = if target.starts_with('/') { String::new() } else { directory_of(path) };
        if !tree.exists(&normalize(&format!("{from}/{}", target.replace("%20", " ")))) {
            let what = format!("the link leads to {target}, which does not exist");
            findings.push(Finding::new(path, line_at(text, &range), what, "correct the link"));
        }
    }
    findings
}

fn make_targets(tree: &Tree, readme: &str) -> Vec<Finding> {
    let makefile = tree.texts.get("Makefile").map_or("", String::as_str);
    let known: Vec<&str> = makefile.lines().flat_map(defined_targets).collect();
    let mut findings = Vec::new();
    let mut in_block = false;
    for (event, range) in Parser::new(readme).into_offset_iter() {
        let code = match event {
            Event::Start(Tag::CodeBlock(_)) => {
                in_block = true;
                continue;
            }
            Event::End(TagEnd::CodeBlock) => {
                in_block = false;
                continue;
            }
            Event::Text(text) if in_block => text,
            Event::Code(text) => text,
            _ => continue,
        };
        for (line, number) in code.lines().zip(line_at(readme, &range)..) {
            for target in named_targets(line).filter(|target| !known.contains(target)) {
                let what = format!("the Makefile has no target {target}");
                findings.push(Finding::new(
                    "README.md",
                    number,
                    what,
                    "correct the README, or add the target",
                ));
            }
        }
    }
    findings
}

/// Targets that a line of a Makefile defines.
fn defined_targets(line: &str) -> impl Iterator<Item = &str> {
    let rule = line.split_once(':').filter(|(left, right)| {
        !line.starts_with(['\t', '#', ' '])
            && !right.starts_with('=')
            && !right.starts_with(":=")
            && !left.contains('=')
    });
    rule.map_or("", |(left, _)| left).split_whitespace()
}

/// Targets that a command line asks `make` for: the words after `make` that are neither options nor variables.
fn named_targets(line: &str) -> impl Iterator<Item = &str> {
    let mut words = line.split_whitespace().skip_while(|word| *word != "make").skip(1).peekable();
    // `make -C DIR` runs another Makefile.
    let elsewhere = words.peek().is_some_and(|word| *word == "-C");
    let is_word = move |word: &&str| {
        !elsewhere && word.chars().all(|it| it.is_ascii_alphanumeric() || "-_=/.:".contains(it))
    };
    words.take_while(is_word).filter(|word| !word.starts_with('-') && !word.contains('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_and_unknown_targets_are_found() {
        let readme = "# X\n\nSee [a](docs/a.md#part), [b](docs/b.md), [c](https://example.org/c), [d](#x), [e][e].\n\n\
                      [e]: gone.md\n\n`[f](no.md)`: `make demo`, `make lint`; make sure.\n\n```sh\ncd x\nmake -j2 test V=1 # make it\nmake other && ls\n```\n";
        let tree = Tree::from_texts(&[
            ("Cargo.toml", "[workspace]\nmembers = []\n"),
            ("Makefile", "V := 1\n.PHONY: x\ndemo test: x\n\tmake lint: no\n"),
            ("README.md", readme),
            ("docs/a.md", "[up](../README.md) [root](/Makefile) ![none](picture.svg)\n"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|it| (it.path, it.line, it.what)).collect();
        let expected = [
            ("README.md", 3, "the link leads to docs/b.md, which does not exist"),
            ("README.md", 3, "the link leads to gone.md, which does not exist"),
            ("docs/a.md", 1, "the link leads to picture.svg, which does not exist"),
            ("README.md", 7, "the Makefile has no target lint"),
            ("README.md", 12, "the Makefile has no target other"),
        ];
        assert_eq!(found, expected.map(|(path, line, what)| (path.to_owned(), line, what.to_owned())));
    }
}
