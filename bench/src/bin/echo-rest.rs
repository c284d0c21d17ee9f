//! A bare Rocket server, to compare the REST producer with: it parses the same vote and returns a receipt of the same
//! form, without a vote log.

use std::net::SocketAddr;

use clap::Parser;
use rocket::{
    config::LogLevel,
    http::Status,
    post, routes,
    serde::json::{Json, Value, json},
};
use serde::Deserialize;

/// Return a receipt for each vote over REST, and store nothing
#[derive(Parser)]
#[command(version, after_help = "Example:\n  echo-rest --listen 127.0.0.1:8000")]
struct Flags {
    /// The address to listen on
    #[arg(long)]
    listen: SocketAddr,
}

/// A vote in the form that files for load tests have. Its numbers are JSON numbers or texts.
#[derive(Deserialize)]
#[expect(dead_code, reason = "the fields are parsed because the producer parses them")]
struct Ballot {
    name: String,
    album: Option<String>,
    year: Option<Value>,
    rank: Option<Value>,
    vote_id: String,
}

#[post("/v1/votes", data = "<ballot>")]
#[expect(clippy::needless_pass_by_value, reason = "as Rocket passes it")]
fn vote(ballot: Json<Ballot>) -> (Status, Value) {
    (Status::Accepted, receipt(&ballot.vote_id))
}

/// Returns the receipts of votes in JSON lines, the form in which the flood sends batches.
#[post("/v1/votes/batch", data = "<lines>")]
fn votes(lines: &[u8]) -> Result<Value, Status> {
    let ballots = serde_json::Deserializer::from_slice(lines).into_iter::<Ballot>();
    let receipts: Result<Vec<Value>, _> = ballots.map(|ballot| ballot.map(|ballot| receipt(&ballot.vote_id))).collect();
    receipts.map(Value::Array).map_err(|_| Status::UnprocessableEntity)
}

fn receipt(vote_id: &str) -> Value {
    json!({
        "vote_id": vote_id,
        "contest": "bands",
        "partition": 7,
        "offset": 1_234_567,
        "accepted_at": "2026-11-21T12:00:00.123Z",
    })
}

#[rocket::main]
#[expect(clippy::result_large_err, reason = "Rocket's own error")]
async fn main() -> Result<(), rocket::Error> {
    let Flags { listen } = Flags::parse();
    let config = rocket::Config {
        address: listen.ip(),
        port: listen.port(),
        log_level: LogLevel::Off,
        limits: rocket::data::Limits::new().limit("bytes", rocket::data::ByteUnit::Megabyte(4)),
        ..rocket::Config::release_default()
    };
    rocket::custom(config).mount("/", routes![vote, votes]).launch().await?;
    Ok(())
}
