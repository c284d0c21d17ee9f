//! This build script generates the services. The messages of the services are in the crate `proto`.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 2] = ["ovation/v1/votes.proto", "ovation/v1/results.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../ovation");
    let compiled = protox::compile(FILES, [".."])?;
    let descriptors = PathBuf::from(env::var("OUT_DIR")?).join("ovation.bin");
    fs::write(&descriptors, protox::prost::Message::encode_to_vec(&compiled))?;
    tonic_prost_build::configure().extern_path(".ovation.v1", "::proto::v1").compile_fds(compiled)?;
    Ok(())
}
