//! Generates the messages and services; protox parses the `.proto` files, so no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 3] = ["ovation/v1/votes.proto", "ovation/v1/results.proto", "ovation/v1/log.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=ovation");
    let compiled = protox::compile(FILES, ["."])?;
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("ovation.bin");
    fs::write(&descriptors, protox::prost::Message::encode_to_vec(&compiled))?;
    tonic_prost_build::configure().compile_fds(compiled)?;
    Ok(())
}
