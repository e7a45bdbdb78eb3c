//! Compiles the C part. It finds out by itself whether libfabric's headers are there, so nothing has to be installed.

use std::path::Path;

const HEADER: &str = "/usr/include/rdma/fabric.h";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/glue.c");
    // A file that does not exist would have this run at every build.
    if Path::new(HEADER).exists() {
        println!("cargo::rerun-if-changed={HEADER}");
    }
    let mut glue = cc::Build::new();
    glue.file("src/glue.c").warnings(true).extra_warnings(true);
    if std::env::var_os("CARGO_FEATURE_LIBFABRIC").is_some() {
        glue.define("PARTITA_WANT_LIBFABRIC", None);
    }
    glue.compile("partita_rdma_glue");
}
