//! The report in words and tables.

use std::{fmt::Write, thread};

use votes::UnixMillis;

use super::{
    CompareArgs,
    measure::{Load, Measurement, NOBODY},
    summary::{CostFigures, DoorFigures, Pair, Summary, UnderLoad},
};
use crate::flood::{Protocol, Rate};

/// A cheaper vote than this many times is worth another way of sending.
const WORTH_ANOTHER_WAY: f64 = 2.0;

/// A line for each measurement. Times in milliseconds, CPU in microseconds; what was not measured is empty.
pub(super) fn csv(measurements: &[Measurement]) -> String {
    let mut csv =
        "round,load,door,sent,acknowledged,votes_per_second,p50_ms,p90_ms,p99_ms,p999_ms,max_ms,cpu_us_per_vote,\
                   resident_mb,open_files,bytes_sent_per_vote,bytes_received_per_vote\n"
            .to_owned();
    for one in measurements {
        let Measurement { round, load, door, sent, acknowledged, rate, .. } = one;
        let (p50, p90, p99, p999) =
            (one.latency_ms(0.5), one.latency_ms(0.9), one.latency_ms(0.99), one.latency_ms(0.999));
        let cost = one.cost.map_or_else(
            || ",,".to_owned(),
            |cost| format!("{:.1},{:.1},{}", cost.cpu_us, cost.resident_mb, cost.open_files),
        );
        let _ = writeln!(
            csv,
            "{round},{load},{},{sent},{acknowledged},{rate:.1},{p50},{p90},{p99},{p999},{},{cost},{:.1},{:.1}",
            door.name(),
            one.micros.max() as f64 / 1e3,
            one.bytes_sent,
            one.bytes_received,
        );
    }
    csv
}

/// The whole report.
pub(super) fn markdown(args: &CompareArgs, summary: &Summary) -> String {
    let mut text = format!("# The doors compared\n\n{}\n\n{}\n", setting(args, summary), verdict(summary));
    for load in &summary.loads {
        let _ = write!(text, "\n## {}\n\n{}", heading(load.load), table(load));
        if !load.pairs.is_empty() {
            let _ = write!(text, "\n{}", ratios(load));
        }
    }
    text += "\n## Pictures\n\n![How many votes were acknowledged within which time](latency-cdf.svg)\n\n\
             ![Latency against the rate of votes](latency-by-rate.svg)\n";
    let _ = write!(text, "\n{}", why(summary));
    text += "\n## What this does not show\n\n\
             - The flood runs on one thread; where it shares the machine with the doors, it takes a part of the processor that \
             a vote from elsewhere would leave to them, and its own cost of a protocol is in the latencies.\n\
             - Latency is counted from when a vote was due, so it has the client's waiting for a free connection, and none of a \
             network's way.\n\
             - Whatever stands before a door, such as a cluster's entry, is in the latencies, and bytes are those between it and \
             the client.\n";
    text += if summary.has_costs() {
        "- CPU is of the door's process alone: what the vote log, the counting and the client spend is not in it. In `ovation \
         up` one process is all of them, and then it is.\n"
    } else {
        "- CPU, memory and open files of the doors were not measured, since their processes could not be asked.\n"
    };
    text += "- At `max` the doors are compared with as many votes in flight as the flood holds open for each protocol; more \
             of them would mean other latencies.\n";
    text
}

fn setting(args: &CompareArgs, summary: &Summary) -> String {
    let doors: Vec<&str> = args.doors.iter().map(|door| door.name()).collect();
    let rates: Vec<String> = args.rates.iter().map(|&rate| Load(rate).to_string()).collect();
    let admins = [("rest", &args.rest_admin), ("grpc", &args.grpc_admin)];
    let nobody: Vec<String> = admins
        .iter()
        .filter(|(_, admin)| *admin == NOBODY)
        .map(|(door, _)| format!(" --{door}-admin {NOBODY}"))
        .collect();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Measured on {} by ovation {} from a client with {cores} cores: {} at {}; REST at {}, gRPC at {}. {} rounds, each of \
         them every door forth and back, {:?} a measurement; votes are acknowledged when the vote log has them. A figure \
         is the median of all measurements, with the least and the most behind it.\n\n\
         ```sh\novation compare --rest {} --grpc {}{} --doors {} --rates {} --rounds {} --seconds {:?}\n```",
        UnixMillis::now(),
        env!("CARGO_PKG_VERSION"),
        doors.join(", "),
        rates.join(", "),
        args.rest,
        args.grpc,
        summary.rounds,
        args.seconds,
        args.rest.to_string().trim_end_matches('/'),
        args.grpc.to_string().trim_end_matches('/'),
        nobody.concat(),
        args.doors.iter().map(|door| slug(*door)).collect::<Vec<_>>().join(","),
        rates.iter().map(|rate| rate.trim_end_matches("/s")).collect::<Vec<_>>().join(","),
        args.rounds,
        args.seconds,
    )
}

fn slug(door: Protocol) -> String {
    door.name().to_lowercase().replace(' ', "-")
}

fn heading(load: Load) -> String {
    match load.0 {
        Rate::PerSecond(rate) => format!("At {rate} votes a second"),
        Rate::Max => "As many votes as a door takes".to_owned(),
    }
}

fn table(load: &UnderLoad) -> String {
    let has_costs = load.has_costs();
    let mut columns = vec!["door", "votes/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms"];
    if has_costs {
        columns.extend(["CPU us/vote", "resident MB", "open files"]);
    }
    columns.extend(["bytes out, in / vote", "not acknowledged"]);
    let mut text = format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for door in &load.doors {
        let DoorFigures { rate, p50_ms, p90_ms, p99_ms, p999_ms, .. } = door;
        let mut cells = vec![door.door.name().to_owned(), rate.shown(0)];
        cells.extend([p50_ms, p90_ms, p99_ms, p999_ms].map(|latency| latency.shown(2)));
        match &door.cost {
            Some(CostFigures { cpu_us, resident_mb, open_files }) => {
                cells.push(cpu_us.shown(1));
                cells.extend([resident_mb, open_files].map(|figure| format!("{:.0}", figure.most)));
            }
            None if has_costs => cells.extend(["not measured".to_owned(), String::new(), String::new()]),
            None => {}
        }
        cells.push(format!("{:.0}, {:.0}", door.bytes_sent.median, door.bytes_received.median));
        cells.push(door.not_acknowledged.to_string());
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn ratios(load: &UnderLoad) -> String {
    let mut text = "Within rounds, the first door's figure divided by the second's:\n\n\
                    | doors | votes/s | p50 | p99 | CPU a vote |\n|---|---|---|---|---|\n"
        .to_owned();
    for Pair { one, other, rate, p50, p99, cpu } in &load.pairs {
        let _ = writeln!(
            text,
            "| {} / {} | {} | {} | {} | {} |",
            one.name(),
            other.name(),
            rate.shown(2),
            p50.shown(2),
            p99.shown(2),
            cpu.map_or_else(|| "not measured".to_owned(), |cpu| cpu.shown(2)),
        );
    }
    text
}

/// Which door was faster, by how much, at which rate, and how sure that is.
pub(super) fn verdict(summary: &Summary) -> String {
    let mut lines = Vec::new();
    for load in &summary.loads {
        for Pair { one, other, rate, p50, p99, cpu } in &load.pairs {
            // Doors that do the same for a client: a vote a request, or many.
            if one.is_single() != other.is_single() {
                continue;
            }
            let mut said = vec![
                p50.outcome("median latency", one.name(), other.name()),
                p99.outcome("p99", one.name(), other.name()),
            ];
            said.extend(cpu.map(|cpu| cpu.outcome("CPU a vote", one.name(), other.name())));
            if load.load.0 == Rate::Max {
                said.insert(0, rate.outcome("throughput", one.name(), other.name()));
            }
            lines.push(format!("- **{} against {}, {}**: {}.", one.name(), other.name(), load.load, said.join("; ")));
        }
    }
    if lines.is_empty() {
        return "One door alone can't be compared.".to_owned();
    }
    lines.join("\n")
}

/// What is measured of the reasons, and what follows from it.
fn why(summary: &Summary) -> String {
    let mut text = "## Why, and when to use which\n\n".to_owned();
    let Some(load) = summary.loads.iter().rev().find(|load| load.load.0 != Rate::Max).or(summary.loads.last()) else {
        return text;
    };
    let _ = writeln!(
        text,
        "At {}: {}.",
        load.load,
        load.doors
            .iter()
            .map(|door| {
                let bytes = bytes(door);
                let cpu =
                    door.cost.as_ref().map(|cost| format!(", and its process takes {:.1} us", cost.cpu_us.median));
                let door = door.door.name();
                format!("{door} puts {bytes:.0} bytes a vote on the wire, there and back{}", cpu.unwrap_or_default())
            })
            .collect::<Vec<_>>()
            .join("; ")
    );
    for (single, many) in [(Protocol::Grpc, Protocol::GrpcStream), (Protocol::Rest, Protocol::RestBatch)] {
        let cost = |door| load.door(door)?.cost.as_ref();
        let (Some(one), Some(all)) = (cost(single), cost(many)) else { continue };
        let times = one.cpu_us.median / all.cpu_us.median;
        let advice = if times >= WORTH_ANOTHER_WAY {
            "so most of a single vote's cost is its request, not the vote: whoever has many votes at hand (a gateway, an import, \
             a kiosk that was offline) should send them that way"
        } else {
            "so at this rate sending many together gains little"
        };
        let _ = writeln!(
            text,
            "\n- A vote over {} costs {times:.1} times one over {}, {advice}.",
            single.name(),
            many.name()
        );
    }
    if let (Some(grpc), Some(rest)) = (load.door(Protocol::Grpc), load.door(Protocol::Rest)) {
        let bytes = 100.0 * bytes(grpc) / bytes(rest);
        let (cpu, files) = match (&grpc.cost, &rest.cost) {
            (Some(grpc), Some(rest)) => (
                format!(" and {:.0} % of the CPU", 100.0 * grpc.cpu_us.median / rest.cpu_us.median),
                format!(", over {:.0} open files against {:.0}", grpc.open_files.median, rest.open_files.median),
            ),
            _ => Default::default(),
        };
        let _ = writeln!(
            text,
            "\n- For single votes, a gRPC vote takes {bytes:.0} % of the bytes{cpu} of a REST vote{files}: services that keep a \
             connection open gain that much from gRPC; browsers, scripts and whatever speaks no HTTP/2 lose no more than that \
             with REST.",
        );
    }
    text
}

/// A vote's on the wire, there and back.
fn bytes(door: &DoorFigures) -> f64 {
    door.bytes_sent.median + door.bytes_received.median
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

    #[test]
    fn a_door_is_called_faster_only_if_it_was_in_every_round() {
        let sure = verdict(&Summary::of(&rounds([2.0, 4.0, 8.0], [4.0, 8.0, 16.0])));
        assert!(sure.contains("median latency of REST is 100 % higher than that of gRPC in every round"), "{sure}");
        assert!(sure.contains("CPU a vote of REST is 50 % higher"), "{sure}");
        let unsure = verdict(&Summary::of(&rounds([2.0, 4.0, 8.0], [4.0, 8.0, 7.0])));
        assert!(unsure.contains("median latency: no difference can be told"), "{unsure}");
    }

    #[test]
    fn each_measurement_is_a_line_with_all_columns() {
        let csv = csv(&rounds([1.0; 3], [1.0; 3]));
        let columns: Vec<usize> = csv.lines().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [16; 7]);
    }

    #[test]
    fn where_no_door_tells_its_cost_the_report_says_so_and_claims_none() {
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
        let report = markdown(&compare, &Summary::of(&measurements));
        let (figures, limits) = report.split_once("What this does not show").unwrap();
        assert!(limits.contains("CPU, memory and open files of the doors were not measured"), "{report}");
        assert!(figures.contains("--rest-admin none --grpc-admin none"), "{report}");
        for claim in ["CPU us", "resident", "open files", "its process takes", "of the CPU", "CPU a vote of"] {
            assert!(!figures.contains(claim), "{claim}: {report}");
        }
        assert!(csv(&measurements).lines().skip(1).all(|line| line.split(',').count() == 16 && line.contains(",,,")));

        // One that tells it has its figures beside one that doesn't.
        measurements[0].cost = measured(Protocol::Grpc, Rate::Max, 1, 1.0, 40.0).cost;
        let report = markdown(&compare, &Summary::of(&measurements));
        assert!(
            report.contains("| 40.0 (40.0 to 40.0) | 12 | 80 |") && report.contains("| not measured |  |  |"),
            "{report}"
        );
    }
}
