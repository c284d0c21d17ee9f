//! This build script generates the messages. protox parses the `.proto` files, so `protoc` is not needed.

use std::error::Error;

const FILES: [&str; 3] = ["ovation/v1/votes.proto", "ovation/v1/results.proto", "ovation/v1/log.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=ovation");
    prost_build::Config::new().compile_fds(protox::compile(FILES, ["."])?)?;
    Ok(())
}
