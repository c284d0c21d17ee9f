//! The floor under the REST door: a bare Rocket that reads the same vote and answers the same receipt, without a log.

use std::net::SocketAddr;

use clap::Parser;
use rocket::{
    config::LogLevel,
    http::Status,
    post, routes,
    serde::json::{Json, Value, json},
};
use serde::Deserialize;

/// Answer votes over REST without doing anything
#[derive(Parser)]
#[command(version, after_help = "Example:\n  echo-rest --listen 127.0.0.1:8000")]
struct Flags {
    /// Where to listen
    #[arg(long)]
    listen: SocketAddr,
}

/// A vote as load files have it: numbers as such, or as text.
#[derive(Deserialize)]
#[expect(dead_code, reason = "what is read is what the door reads")]
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

/// Votes by line, as the flood sends them.
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
