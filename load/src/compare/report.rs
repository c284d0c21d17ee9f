//! Writes the text of the report.

use std::fmt::Write;

use service::program::Failure;
use votes::UnixMillis;

use super::{
    args::CompareArgs,
    measure::{Load, Measurement},
    summary::{CostFigures, Pair, ProducerFigures, Summary, UnderLoad},
};
use crate::{
    admin::NO_ADMIN,
    flood::{Protocol, Rate},
    markdown,
    rounds::Measured,
};

/// The minimum ratio of the costs per vote at which the report recommends to send votes together.
const MIN_WORTHWHILE_RATIO: f64 = 2.0;

const COLUMNS: [&str; 16] = [
    "round",
    "load",
    "producer",
    "sent",
    "acknowledged",
    "votes_per_second",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "p999_ms",
    "max_ms",
    "cpu_us_per_vote",
    "resident_mb",
    "open_files",
    "bytes_sent_per_vote",
    "bytes_received_per_vote",
];

/// Returns a CSV line for each measurement. Latencies are in milliseconds, CPU times in microseconds. The cell of a
/// figure that was not measured is empty.
pub(super) fn csv(measurements: &[Measurement]) -> Result<Vec<u8>, Failure> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(COLUMNS)?;
    for one in measurements {
        let Measurement { round, load, producer, sent, acknowledged, rate, .. } = one;
        let quantile = |quantile| one.quantile_ms(quantile).to_string();
        let cost = one.cost.map_or_else(Default::default, |cost| {
            [format!("{:.1}", cost.cpu_us), format!("{:.1}", cost.resident_mb), cost.open_files.to_string()]
        });
        let [cpu, resident, open_files] = cost;
        let cells: [String; COLUMNS.len()] = [
            round.to_string(),
            load.to_string(),
            producer.name().to_owned(),
            sent.to_string(),
            acknowledged.to_string(),
            format!("{rate:.1}"),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            (one.micros.max() as f64 / 1e3).to_string(),
            cpu,
            resident,
            open_files,
            format!("{:.1}", one.bytes_sent),
            format!("{:.1}", one.bytes_received),
        ];
        csv.write_record(cells)?;
    }
    Ok(csv.into_inner()?)
}

/// Returns the whole report.
pub(super) fn report(args: &CompareArgs, summary: &Summary) -> String {
    let mut text = format!("# gRPC compared with REST\n\n{}\n\n{}\n", setting(args, summary), verdict(summary));
    for load in &summary.loads {
        let _ = write!(text, "\n## {}\n\n{}", heading(load.load), table(load));
        if !load.pairs.is_empty() {
            let _ = write!(text, "\n{}", ratios(load));
        }
    }
    text += "\n## Pictures\n\n![Share of votes acknowledged within a given time](latency-cdf.svg)\n\n\
             ![Latency by rate of votes](latency-by-rate.svg)\n";
    let _ = write!(text, "\n{}", advice(summary));
    text += "\n## What this does not show\n\n\
             - The flood runs on one thread. If it shares the machine with the producers, it takes CPU that the producers could use \
             for votes from elsewhere. The latencies include the flood's own cost of each protocol.\n\
             - Latency is measured from the moment at which a vote was due. It includes the client's wait for a free connection, \
             and no network.\n\
             - If a proxy, such as a cluster's entry, is in front of a producer, the latencies include it, and the bytes are those \
             between the client and the proxy.\n";
    text += if summary.has_costs() {
        "- The CPU is that of the producer's process alone, without the vote log, the counting and the client. In `ovation up` one \
         process does all of this, and the CPU includes it.\n"
    } else {
        "- CPU, memory and open files of the producers were not measured, because their processes were not reachable.\n"
    };
    text += "- At `max` the flood keeps a fixed number of votes in flight for each protocol. Another number gives other \
             latencies.\n";
    text
}

fn setting(args: &CompareArgs, summary: &Summary) -> String {
    let producers: Vec<&str> = args.producers.iter().map(|producer| producer.name()).collect();
    let rates: Vec<String> = args.rates.iter().map(|&rate| Load(rate).to_string()).collect();
    let admins = [("rest", &args.rest_admin), ("grpc", &args.grpc_admin)];
    let without_admin: Vec<String> = admins
        .iter()
        .filter(|(_, admin)| *admin == NO_ADMIN)
        .map(|(producer, _)| format!(" --{producer}-admin {NO_ADMIN}"))
        .collect();
    let cores = markdown::cores();
    format!(
        "Measured on {} by ovation {}, with a client on {cores} cores: {} at {}. REST was at {}, gRPC at {}. There were {} \
         rounds; each measured every producer twice, in alternating order, for {:?}. A vote is acknowledged when the vote log \
         has it. A figure is the median of all measurements, with the lowest and the highest in parentheses.\n\n\
         ```sh\novation compare --rest {} --grpc {}{} --producers {} --rates {} --rounds {} --seconds {:?}\n```",
        UnixMillis::now(),
        env!("CARGO_PKG_VERSION"),
        producers.join(", "),
        rates.join(", "),
        args.rest,
        args.grpc,
        summary.rounds,
        args.seconds,
        args.rest.to_string().trim_end_matches('/'),
        args.grpc.to_string().trim_end_matches('/'),
        without_admin.concat(),
        args.producers.iter().map(|producer| slug(*producer)).collect::<Vec<_>>().join(","),
        rates.iter().map(|rate| rate.trim_end_matches("/s")).collect::<Vec<_>>().join(","),
        args.rounds,
        args.seconds,
    )
}

fn slug(producer: Protocol) -> String {
    producer.name().to_lowercase().replace(' ', "-")
}

fn heading(load: Load) -> String {
    match load.0 {
        Rate::PerSecond(rate) => format!("At {rate} votes per second"),
        Rate::Max => "At the maximum rate".to_owned(),
    }
}

fn table(load: &UnderLoad) -> String {
    let has_costs = load.has_costs();
    let mut columns = vec!["producer", "votes/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms"];
    if has_costs {
        columns.extend(["CPU us/vote", "resident MB", "open files"]);
    }
    columns.extend(["bytes out, in / vote", "not acknowledged"]);
    let row = |producer: &ProducerFigures| {
        let ProducerFigures { rate, p50_ms, p90_ms, p99_ms, p999_ms, .. } = producer;
        let mut cells = vec![producer.producer.name().to_owned(), rate.formatted(0)];
        cells.extend([p50_ms, p90_ms, p99_ms, p999_ms].map(|latency| latency.formatted(2)));
        match &producer.cost {
            Some(CostFigures { cpu_us, resident_mb, open_files }) => {
                cells.push(cpu_us.formatted(1));
                cells.extend([resident_mb, open_files].map(|figure| format!("{:.0}", figure.max)));
            }
            None if has_costs => cells.extend(["not measured".to_owned(), String::new(), String::new()]),
            None => {}
        }
        cells.push(format!("{:.0}, {:.0}", producer.bytes_sent.median, producer.bytes_received.median));
        cells.push(producer.not_acknowledged.to_string());
        cells
    };
    markdown::table(&columns, load.producers.iter().map(row))
}

fn ratios(load: &UnderLoad) -> String {
    let row = |Pair { one, other, rate, p50, p99, cpu }: &Pair| {
        let cpu = cpu.map_or_else(|| "not measured".to_owned(), |cpu| cpu.formatted(2));
        vec![format!("{} / {}", one.name(), other.name()), rate.formatted(2), p50.formatted(2), p99.formatted(2), cpu]
    };
    let table = markdown::table(&["producers", "votes/s", "p50", "p99", "CPU per vote"], load.pairs.iter().map(row));
    format!("The first producer's figure divided by the second's, within each round:\n\n{table}")
}

/// Describes which producer was faster, by how much, at which rate, and how consistent the difference was.
pub(super) fn verdict(summary: &Summary) -> String {
    let mut lines = Vec::new();
    for load in &summary.loads {
        for Pair { one, other, rate, p50, p99, cpu } in &load.pairs {
            // Compare only producers that are equivalent for a client: both with one vote per request, or both with
            // many.
            if one.is_single() != other.is_single() {
                continue;
            }
            let mut parts = vec![
                p50.describe("median latency", one.name(), other.name()),
                p99.describe("p99", one.name(), other.name()),
            ];
            parts.extend(cpu.map(|cpu| cpu.describe("CPU per vote", one.name(), other.name())));
            if load.load.0 == Rate::Max {
                parts.insert(0, rate.describe("throughput", one.name(), other.name()));
            }
            lines.push(format!("- **{} against {}, {}**: {}.", one.name(), other.name(), load.load, parts.join("; ")));
        }
    }
    if lines.is_empty() {
        return "A comparison needs two producers.".to_owned();
    }
    lines.join("\n")
}

/// Returns the advice on which producer to use, with the measured reasons.
fn advice(summary: &Summary) -> String {
    let mut text = "## Which producer to use\n\n".to_owned();
    let Some(load) = summary.loads.iter().rev().find(|load| load.load.0 != Rate::Max).or(summary.loads.last()) else {
        return text;
    };
    let _ = writeln!(text, "At {}:\n", load.load);
    for producer in &load.producers {
        let bytes = bytes(producer);
        let cpu = producer.cost.as_ref().map(|cost| format!(", and its process takes {:.1} us", cost.cpu_us.median));
        let producer = producer.producer.name();
        let _ = writeln!(
            text,
            "- {producer} transfers {bytes:.0} bytes per vote, both directions together{}.",
            cpu.unwrap_or_default()
        );
    }
    for (single, many) in [(Protocol::Grpc, Protocol::GrpcStream), (Protocol::Rest, Protocol::RestBatch)] {
        let cost = |producer| load.producer(producer)?.cost.as_ref();
        let (Some(one), Some(all)) = (cost(single), cost(many)) else { continue };
        let times = one.cpu_us.median / all.cpu_us.median;
        let advice = if times >= MIN_WORTHWHILE_RATIO {
            "Most of the cost of a single vote is its request. A client that has many votes (a gateway, an import, a kiosk that \
             was offline) should send them together."
        } else {
            "At this rate, sending many votes together gains little."
        };
        let _ = writeln!(
            text,
            "- A vote over {} costs {times:.1} times as much CPU as a vote over {}. {advice}",
            single.name(),
            many.name()
        );
    }
    if let (Some(grpc), Some(rest)) = (load.producer(Protocol::Grpc), load.producer(Protocol::Rest)) {
        let bytes = 100.0 * bytes(grpc) / bytes(rest);
        let (cpu, files) = match (&grpc.cost, &rest.cost) {
            (Some(grpc), Some(rest)) => (
                format!(" and {:.0} % of the CPU", 100.0 * grpc.cpu_us.median / rest.cpu_us.median),
                format!(", with {:.0} open files against {:.0}", grpc.open_files.median, rest.open_files.median),
            ),
            _ => Default::default(),
        };
        let _ = writeln!(
            text,
            "- For single votes, gRPC takes {bytes:.0} % of the bytes{cpu} of REST{files}. A service that keeps a connection \
             open gains this much with gRPC. A browser, a script or another client without HTTP/2 loses no more than this with \
             REST.",
        );
    }
    text
}

/// Returns the bytes per vote, the sum of both directions.
fn bytes(producer: &ProducerFigures) -> f64 {
    producer.bytes_sent.median + producer.bytes_received.median
}

#[cfg(test)]
mod tests {
    use super::{super::summary::tests::measured, *};

    fn rounds(grpc_ms: [f64; 3], rest_ms: [f64; 3]) -> Vec<Measurement> {
        let mut all = Vec::new();
        for (round, (grpc, rest)) in (1..).zip(grpc_ms.into_iter().zip(rest_ms)) {
            all.push(measured(Protocol::Grpc, Rate::PerSecond(500.0), round, grpc, 40.0));
            all.push(measured(Protocol::Rest, Rate::PerSecond(500.0), round, rest, 60.0));
        }
        all
    }

    fn csv_text(measurements: &[Measurement]) -> String {
        String::from_utf8(csv(measurements).unwrap()).unwrap()
    }

    #[test]
    fn a_producer_is_reported_as_faster_only_if_it_was_in_every_round() {
        let sure = verdict(&Summary::of(&rounds([2.0, 4.0, 8.0], [4.0, 8.0, 16.0])));
        assert!(sure.contains("median latency of REST is 100 % higher than that of gRPC in every round"), "{sure}");
        assert!(sure.contains("CPU per vote of REST is 50 % higher"), "{sure}");
        let unsure = verdict(&Summary::of(&rounds([2.0, 4.0, 8.0], [4.0, 8.0, 7.0])));
        assert!(unsure.contains("median latency: no consistent difference"), "{unsure}");
    }

    #[test]
    fn each_measurement_is_a_line_with_every_column() {
        let csv = csv_text(&rounds([1.0; 3], [1.0; 3]));
        let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [16; 7]);
    }

    #[test]
    fn without_costs_the_report_has_no_claims_about_them() {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            compare: CompareArgs,
        }
        let Alone { compare } = clap::Parser::parse_from(["compare", "--rest-admin=none", "--grpc-admin=none"]);
        let mut measurements = rounds([2.0, 4.0, 8.0], [4.0, 8.0, 16.0]);
        for one in &mut measurements {
            one.cost = None;
        }
        let report = super::report(&compare, &Summary::of(&measurements));
        let (figures, limits) = report.split_once("What this does not show").unwrap();
        assert!(limits.contains("CPU, memory and open files of the producers were not measured"), "{report}");
        assert!(figures.contains("--rest-admin none --grpc-admin none"), "{report}");
        for claim in ["CPU us", "resident", "open files", "its process takes", "of the CPU", "CPU per vote of"] {
            assert!(!figures.contains(claim), "{claim}: {report}");
        }
        assert!(
            csv_text(&measurements).lines().skip(1).all(|line| line.split(',').count() == 16 && line.contains(",,,"))
        );

        // One producer with a cost, and one without.
        measurements[0].cost = measured(Protocol::Grpc, Rate::Max, 1, 1.0, 40.0).cost;
        let report = super::report(&compare, &Summary::of(&measurements));
        assert!(
            report.contains("| 40.0 (40.0 to 40.0) | 12 | 80 |") && report.contains("| not measured |  |  |"),
            "{report}"
        );
    }
}
