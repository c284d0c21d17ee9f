//! Has the page's files embedded anew whenever one comes, goes or changes: the macro alone does not see new ones.

fn main() {
    println!("cargo::rerun-if-changed=assets");
}
