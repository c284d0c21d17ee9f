//! `ovation import`: imports a file as a dataset, or as votes.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use api::{BadRowInfo, IfExists, ImportInfo};
use bytes::Bytes;
use clap::{
    Args, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use client::http::{self, Upload};
use form_urlencoded::Serializer;
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use service::{ConfigError, program::Failure, token::ReadToken};
use tokio::{
    fs::File,
    time::{Instant, sleep},
};
use tokio_util::io::ReaderStream;
use uuid::Uuid;

/// The interval at which the command requests the progress of an import.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// How long the command waits for a service that does not respond. The import itself continues when the service runs
/// again.
const OUTAGE_TIMEOUT: Duration = Duration::from_mins(2);

/// Import a CSV file, as a dataset or as votes
///
/// The service stores the file and loads it. It continues even if this command is stopped after the upload. If you
/// import a file of votes twice, each vote counts once.
///
/// Exit code: 0 if all rows are loaded, 1 if some rows are bad or the import failed, 64 for an invalid command line.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  ovation import ballots.csv\n  ovation import paper-votes.csv --as votes --contest bands"
)]
pub(crate) struct ImportArgs {
    /// The file: CSV in UTF-8, with a header line
    file: PathBuf,
    /// Import the rows as a dataset or as votes
    #[arg(long = "as", value_enum, default_value_t = Kind::Dataset)]
    kind: Kind,
    /// The name of the dataset [default: the name of the file, as a slug]
    #[arg(long)]
    name: Option<String>,
    /// What to do if a dataset of this name exists
    #[arg(long, value_parser = if_exists_parser(), default_value = IfExists::Refuse.as_str())]
    if_exists: IfExists,
    /// The contest of votes whose row has no contest [default: bands]
    #[arg(long)]
    contest: Option<String>,
    /// The URL of the results service
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// A file with the read token of the service
    #[arg(long, value_name = "FILE", env = "OVATION_READ_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A dataset for queries at /v1/datasets
    Dataset,
    /// Votes, which must follow the same rules as votes for a producer
    Votes,
}

/// Returns the parser of the flag `--if-exists`.
fn if_exists_parser() -> impl TypedValueParser<Value = IfExists> {
    let values = IfExists::ALL.map(|value| {
        PossibleValue::new(value.as_str()).help(match value {
            IfExists::Refuse => "Refuse the file",
            IfExists::Replace => "Replace the existing dataset",
            IfExists::Number => "Name the new dataset NAME-2, NAME-3 and so on",
        })
    });
    PossibleValuesParser::new(values).try_map(|value| value.parse::<IfExists>())
}

pub(crate) async fn run(args: ImportArgs) -> Result<ExitCode, Failure> {
    let path = args.path()?;
    let authorization = ReadToken::for_command(args.token_file.as_deref())?.map(|token| token.authorization());
    let authorization = authorization.as_deref();
    // Check the address and the token before the command sends gigabytes.
    http::get_as::<serde_json::Value>(authorization, &args.url, "/v1/datasets").await?;
    let (media_type, body) = multipart_form(&args.file).await?;
    let begun: ImportInfo = http::upload(authorization, &args.url, &path, &media_type, body).await?;
    let ended = wait_until_ended(&args, authorization, begun).await?;
    if args.json {
        println!("{}", serde_json::to_string(&ended)?);
    } else {
        print_result(&ended);
    }
    let is_complete = ended.state == "done" && ended.bad == 0;
    Ok(if is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl ImportArgs {
    /// Returns the path and the query of the upload.
    ///
    /// # Errors
    /// If the flags contradict each other.
    fn path(&self) -> Result<String, Failure> {
        let mut query: Vec<(&str, &str)> = Vec::new();
        let path = match self.kind {
            Kind::Votes if self.name.is_some() => {
                return Err(ConfigError::new("--name", "this is for datasets; an import of votes has no name").into());
            }
            Kind::Dataset if self.contest.is_some() => {
                return Err(ConfigError::new("--contest", "this is only for --as votes").into());
            }
            Kind::Votes => "/v1/votes/import",
            Kind::Dataset => {
                query.push(("if_exists", self.if_exists.as_str()));
                "/v1/datasets"
            }
        };
        query.extend(self.name.as_deref().map(|name| ("name", name)));
        query.extend(self.contest.as_deref().map(|contest| ("contest", contest)));
        Ok(format!("{path}?{}", Serializer::new(String::new()).extend_pairs(query).finish()))
    }
}

/// Returns the media type and the body of a multipart form with the file. While the body is sent, a progress bar shows
/// the progress.
async fn multipart_form(path: &Path) -> Result<(String, Upload), Failure> {
    let at = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).await.map_err(at)?;
    let length = file.metadata().await.map_err(at)?.len();
    let name = path.file_name().unwrap_or_default().to_string_lossy().replace(['"', '\\', '\r', '\n'], "_");
    let boundary = Uuid::now_v7().simple().to_string();
    let head = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: text/csv\r\n\r\n"
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let bar = progress_bar(length, "sending {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}");
    let sent = ReaderStream::with_capacity(file, 256 << 10).inspect(move |bytes| {
        bar.inc(bytes.as_ref().map_or(0, Bytes::len) as u64);
    });
    let framed = |text: String| stream::iter([Ok(Bytes::from(text))]);
    let body = framed(head).chain(sent).chain(framed(tail)).map(|bytes| bytes.map(Frame::data));
    Ok((format!("multipart/form-data; boundary={boundary}"), StreamBody::new(body).boxed_unsync()))
}

/// Waits until an import has ended, and shows a progress bar.
async fn wait_until_ended(
    args: &ImportArgs,
    authorization: Option<&str>,
    mut info: ImportInfo,
) -> Result<ImportInfo, Failure> {
    let bar = progress_bar(info.rows, "loading {bar:30} {human_pos} of {human_len} rows, {per_sec}");
    let path = format!("/v1/imports/{}", info.import);
    let mut last_response = Instant::now();
    while info.state == "loading" {
        bar.set_position(info.loaded + info.bad);
        sleep(POLL_INTERVAL).await;
        match http::get_as(authorization, &args.url, &path).await {
            Ok(now) => (info, last_response) = (now, Instant::now()),
            Err(error) if last_response.elapsed() > OUTAGE_TIMEOUT => {
                return Err(format!(
                    "{error}; the import continues when the service is back: GET {path} returns its progress"
                )
                .into());
            }
            Err(_) => {}
        }
    }
    bar.finish_and_clear();
    Ok(info)
}

/// Creates a progress bar on stderr. It is hidden if stderr is not a terminal.
fn progress_bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr()).with_style(style)
}

fn print_result(info: &ImportInfo) {
    let ImportInfo { file, state, problem, loaded, rows, bad, bad_rows, dataset, contest, .. } = info;
    let target = match (dataset, contest) {
        (Some(dataset), _) => format!("the dataset {dataset}"),
        (None, contest) => format!("votes for {}", contest.as_deref().unwrap_or("bands")),
    };
    if state != "done" {
        println!("{file} was not imported: {}", problem.as_deref().unwrap_or(state));
        return;
    }
    println!("{file}: {} of {} rows are {target}", HumanCount(*loaded), HumanCount(*rows));
    for BadRowInfo { line, problem } in bad_rows {
        println!("  line {line}: {problem}");
    }
    let more = bad - bad_rows.len() as u64;
    if more > 0 {
        println!("  and {} more", HumanCount(more));
    }
}
