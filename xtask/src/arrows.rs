//! Which crates of ours may depend on which.

use crate::finding::Finding;
use crate::tree::{Member, Tree};

/// Each package with the packages of ours it may depend on, also for its tests and its build script.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("partita-abi", &[]),
    ("partita-kernel", &["partita-abi"]),
    ("partita-mpi", &["partita-abi"]),
    ("partita", &[]),
    ("control", &[]),
    ("planner", &["control"]),
    ("partita-tls", &[]),
    ("partita-http", &["partita-tls"]),
    ("partita-rdma", &[]),
    ("migrator", &["partita-http", "partita-rdma", "partita-tls"]),
    ("vmm", &["partita-abi", "partita-kernel", "partita-http", "partita-rdma", "partita-tls", "migrator"]),
    ("agent", &["control", "partita-http", "partita-tls"]),
    // agent: only for the coordinator's own whole-cluster tests, which start real agents.
    ("coordinator", &["control", "planner", "partita-http", "partita-tls", "agent"]),
    ("xtask", &[]),
];

/// Packages that may depend on all others: the whole-system tests and the fuzz targets.
const UNLIMITED: [&str; 2] = ["partita-tests", "partita-fuzz"];

const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Dependencies between our crates that are not in the picture.
pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.members
        .iter()
        .filter(|member| !UNLIMITED.contains(&member.name.as_str()))
        .flat_map(|member| check_member(tree, member))
        .collect()
}

fn check_member(tree: &Tree, member: &Member) -> Vec<Finding> {
    let path = member.manifest_path();
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == member.name) else {
        let what = format!("the package {} is not in the picture of the crates", member.name);
        return vec![Finding::new(
            &path,
            1,
            what,
            "give it its arrows in xtask/src/arrows.rs and in the design",
        )];
    };
    let ours = |name: &str| tree.members.iter().any(|other| other.name == name);
    let mut findings = Vec::new();
    for (key, package) in dependencies(&member.manifest) {
        if ours(&package) && !allowed.contains(&package.as_str()) {
            let line = line_of_dependency(tree.texts.get(&path).map_or("", String::as_str), &key);
            let what = format!("{} may not depend on {package}", member.name);
            let remedy = format!(
                "it may depend on: {}; see the design",
                if allowed.is_empty() { "none of ours".into() } else { allowed.join(", ") }
            );
            findings.push(Finding::new(&path, line, what, remedy));
        }
    }
    findings
}

/// Every dependency of a manifest: its key, and the name of the package.
fn dependencies(manifest: &toml::Table) -> Vec<(String, String)> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let of_targets = targets.into_iter().flat_map(toml::Table::values).filter_map(toml::Value::as_table);
    let tables = std::iter::once(manifest).chain(of_targets);
    let dependencies = tables.flat_map(|table| KINDS.iter().filter_map(|kind| table.get(*kind)?.as_table()));
    let package = |key: &String, value: &toml::Value| {
        let renamed = value.get("package").and_then(toml::Value::as_str);
        (key.clone(), renamed.unwrap_or(key).to_owned())
    };
    dependencies.flatten().map(|(key, value)| package(key, value)).collect()
}

/// Line of the dependency `key`, as `key = …`, `key.workspace = …` or `[dependencies.key]`.
fn line_of_dependency(manifest: &str, key: &str) -> usize {
    let mut in_dependencies = false;
    for (line, number) in manifest.lines().zip(1..) {
        let line = line.trim();
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
            if in_dependencies && line.trim_end_matches(']').ends_with(&format!(".{key}")) {
                return number;
            }
        }
        let rest = line.strip_prefix(key).unwrap_or_default();
        if in_dependencies && rest.starts_with(['.', ' ', '=']) {
            return number;
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_that_is_not_in_the_picture_is_found_in_every_kind_of_dependency() {
        let manifest = "[package]\nname = \"migrator\"\n[dependencies]\nserde = \"1\"\ncontrol.workspace = true\n\
                        [dev-dependencies]\nother = { package = \"vmm\", path = \"../vmm\" }\n\
                        [target.'cfg(unix)'.dependencies.partita-abi]\nworkspace = true\n";
        let tree = Tree::from_texts(&[
            ("Cargo.toml", "[workspace]\nmembers = [\"migrator\", \"vmm\", \"control\", \"abi\", \"new\"]\n"),
            ("migrator/Cargo.toml", manifest),
            ("vmm/Cargo.toml", "[package]\nname = \"vmm\"\n[dependencies]\nmigrator.workspace = true\n"),
            ("control/Cargo.toml", "[package]\nname = \"control\"\n"),
            ("abi/Cargo.toml", "[package]\nname = \"partita-abi\"\n"),
            ("new/Cargo.toml", "[package]\nname = \"new\"\n"),
        ]);
        let mut found: Vec<_> = check(&tree).into_iter().map(|it| (it.path, it.line, it.what)).collect();
        found.sort();
        let expected = [
            ("migrator/Cargo.toml", 5, "migrator may not depend on control"),
            ("migrator/Cargo.toml", 7, "migrator may not depend on vmm"),
            ("migrator/Cargo.toml", 8, "migrator may not depend on partita-abi"),
            ("new/Cargo.toml", 1, "the package new is not in the picture of the crates"),
        ];
        assert_eq!(found, expected.map(|(path, line, what)| (path.to_owned(), line, what.to_owned())));
    }
}
