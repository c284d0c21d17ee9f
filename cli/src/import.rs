//! `ovation import`: a file to a dataset, or to votes.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::{
    fs::File,
    time::{Instant, sleep},
};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::{Failure, client};

/// How often is asked how far an import is.
const LOOK: Duration = Duration::from_millis(300);

/// How long the service may be away while it loads: an import goes on when it is back.
const PATIENCE: Duration = Duration::from_mins(2);

/// Import a file of comma-separated values, as a dataset or as votes
///
/// The service stores the file, and loads it whatever happens then: this command only watches. A file of votes that is imported twice is counted
/// once.
///
/// Exit code: 0 if all rows are loaded, 1 if some are bad or the import failed, 64 for a wrong flag.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ovation import ballots.csv\n  ovation import paper-votes.csv --as votes --contest bands"
)]
pub(crate) struct ImportArgs {
    /// The file: UTF-8, with a line of names
    file: PathBuf,
    /// What its rows become
    #[arg(long = "as", value_enum, default_value_t = Kind::Dataset)]
    kind: Kind,
    /// The dataset's name [default: the file's, as a slug]
    #[arg(long)]
    name: Option<String>,
    /// What happens if there is a dataset of the name
    #[arg(long, value_enum, default_value_t = IfExists::Refuse)]
    if_exists: IfExists,
    /// The contest of votes whose row names none [default: bands]
    #[arg(long)]
    contest: Option<String>,
    /// The results service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A file with the token that the service asks for
    #[arg(long, value_name = "FILE", env = "OVATION_READ_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A dataset, to be asked at /v1/datasets
    Dataset,
    /// Votes, by the rules of the doors
    Votes,
}

#[derive(Clone, Copy, ValueEnum)]
enum IfExists {
    /// The file is refused
    Refuse,
    /// The other one is removed
    Replace,
    /// This one is called NAME-2, NAME-3 and so on
    Number,
}

impl IfExists {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Replace => "replace",
            Self::Number => "number",
        }
    }
}

/// What the service says of an import.
#[derive(Deserialize, Serialize)]
struct Facts {
    import: String,
    file: String,
    #[serde(rename = "as")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dataset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contest: Option<String>,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    bytes: u64,
    rows: u64,
    loaded: u64,
    bad: u64,
    chunks: u32,
    chunks_done: u32,
    bad_rows: Vec<BadRow>,
}

#[derive(Deserialize, Serialize)]
struct BadRow {
    line: u64,
    problem: String,
}

pub(crate) async fn run(args: ImportArgs) -> Result<ExitCode, Failure> {
    let path = args.path()?;
    let token = args.token_file.as_deref();
    // A wrong address or token is told before gigabytes are sent.
    client::get_as::<serde_json::Value>(token, &args.url, "/v1/datasets").await?;
    let (media_type, body) = form(&args.file).await?;
    let begun: Facts = client::upload(token, &args.url, &path, &media_type, body).await?;
    let ended = follow(&args, begun).await?;
    if args.json {
        println!("{}", serde_json::to_string(&ended)?);
    } else {
        tell(&ended);
    }
    let is_whole = ended.state == "done" && ended.bad == 0;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl ImportArgs {
    /// Where the file is posted.
    fn path(&self) -> Result<String, Failure> {
        let mut query: Vec<(&str, &str)> = Vec::new();
        let path = match self.kind {
            Kind::Votes if self.name.is_some() => return Err("--name is a dataset's; votes have none".into()),
            Kind::Dataset if self.contest.is_some() => return Err("--contest is for --as votes".into()),
            Kind::Votes => "/v1/votes/import",
            Kind::Dataset => {
                query.push(("if_exists", self.if_exists.as_str()));
                "/v1/datasets"
            }
        };
        query.extend(self.name.as_deref().map(|name| ("name", name)));
        query.extend(self.contest.as_deref().map(|contest| ("contest", contest)));
        let query: Vec<String> = query.iter().map(|(key, value)| format!("{key}={}", client::encode(value))).collect();
        Ok(format!("{path}?{}", query.join("&")))
    }
}

/// The file as a form, with a bar while it is sent.
async fn form(path: &Path) -> Result<(String, client::Upload), Failure> {
    let at = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).await.map_err(at)?;
    let length = file.metadata().await.map_err(at)?.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy().replace(['"', '\\', '\r', '\n'], "_");
    let boundary = Uuid::now_v7().simple().to_string();
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: text/csv\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let bar = bar(length, "sending {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}");
    let sent = ReaderStream::with_capacity(file, 256 << 10).inspect(move |bytes| {
        bar.inc(bytes.as_ref().map_or(0, Bytes::len) as u64);
    });
    let framed = |text: String| stream::iter([Ok(Bytes::from(text))]);
    let body = framed(head).chain(sent).chain(framed(tail)).map(|bytes| bytes.map(Frame::data));
    Ok((format!("multipart/form-data; boundary={boundary}"), StreamBody::new(body).boxed_unsync()))
}

/// Watches an import until it has ended.
async fn follow(args: &ImportArgs, mut facts: Facts) -> Result<Facts, Failure> {
    let bar = bar(facts.rows, "loading {bar:30} {human_pos} of {human_len} rows, {per_sec}");
    let path = format!("/v1/imports/{}", facts.import);
    let mut answered = Instant::now();
    while facts.state == "loading" {
        bar.set_position(facts.loaded + facts.bad);
        sleep(LOOK).await;
        match client::get_as(args.token_file.as_deref(), &args.url, &path).await {
            Ok(now) => (facts, answered) = (now, Instant::now()),
            Err(error) if answered.elapsed() > PATIENCE => {
                return Err(format!(
                    "{error}; the import goes on once the service does: GET {path} tells how far it is"
                )
                .into());
            }
            Err(_) => {}
        }
    }
    bar.finish_and_clear();
    Ok(facts)
}

/// A bar on a terminal.
fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style)
}

fn tell(facts: &Facts) {
    let Facts { file, state, problem, loaded, rows, bad, bad_rows, dataset, contest, .. } = facts;
    let target = match (dataset, contest) {
        (Some(dataset), _) => format!("the dataset {dataset}"),
        (None, contest) => format!("votes for {}", contest.as_deref().unwrap_or("bands")),
    };
    if state != "done" {
        println!("{file} is not imported: {}", problem.as_deref().unwrap_or(state));
        return;
    }
    println!("{file}: {} of {} rows are {target}", HumanCount(*loaded), HumanCount(*rows));
    for BadRow { line, problem } in bad_rows {
        println!("  line {line}: {problem}");
    }
    let more = bad - bad_rows.len() as u64;
    if more > 0 {
        println!("  and {} more", HumanCount(more));
    }
}
