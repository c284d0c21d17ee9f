//! This build script makes cargo embed the files of the page again if a file was added, removed or changed. The macro
//! alone does not detect new files.

fn main() {
    println!("cargo::rerun-if-changed=assets");
}
