//! The documentation and the programs agree: every flag, key, field and metric in the pages exists, and the pages have
//! every flag, key, field and metric that exists.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tests::{System, get, program_named, without_stores};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the paths of the project's files whose names end with `end`. The paths are relative to the root.
fn files(end: &str) -> Vec<String> {
    fn add(folder: &Path, below: &str, end: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let path = format!("{below}{name}");
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with('.')
                    && !["target", "node_modules", "vendor", "ovation-data"].contains(&name.as_str())
                {
                    add(&entry.path(), &format!("{path}/"), end, found);
                }
            } else if name.ends_with(end) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    add(&root(), "", end, &mut found);
    found.sort();
    found
}

/// Returns the project's pages: the README, `docs/` and the READMEs of the folders.
fn pages() -> Vec<(String, String)> {
    let pages: Vec<(String, String)> = files(".md").into_iter().map(|file| (file.clone(), read(&file))).collect();
    assert!(pages.len() > 15, "only {} pages were found", pages.len());
    pages
}

/// Returns the cells of the tables below a heading, up to the next heading of the same or a higher level.
fn tables(page: &str, heading: &str) -> Vec<Vec<String>> {
    let level = heading.chars().take_while(|&sign| sign == '#').count();
    let is_end = |line: &&str| (1..=level).any(|level| line.starts_with(&format!("{} ", "#".repeat(level))));
    let lines = page.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !is_end(line));
    let rows: Vec<Vec<String>> = lines
        .filter(|line| line.starts_with('|') && !line.starts_with("|--"))
        .map(|line| {
            line.replace("\\|", "\u{1}")
                .trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().replace('\u{1}', "|"))
                .collect()
        })
        .collect();
    assert!(!rows.is_empty(), "there is no table below {heading:?}");
    rows
}

/// Returns the texts between backticks.
fn code_spans(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the longest parts of a text that consist of allowed characters only.
fn words(text: &str, is_allowed: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |sign| !is_allowed(sign)).filter(|word| !word.is_empty())
}

fn is_name_sign(sign: char) -> bool {
    sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_'
}

fn is_flag_sign(sign: char) -> bool {
    sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '-'
}

/// Returns the flags that a text names, without the two hyphens.
fn flags_in(text: &str) -> BTreeSet<String> {
    let flags = words(text, is_flag_sign).filter_map(|word| word.strip_prefix("--"));
    flags.filter(|flag| flag.starts_with(|sign: char| sign.is_ascii_lowercase())).map(str::to_owned).collect()
}

#[track_caller]
fn assert_same(what: &str, existing: &BTreeSet<String>, documented: &BTreeSet<String>) {
    let missing: Vec<_> = existing.difference(documented).collect();
    let unknown: Vec<_> = documented.difference(existing).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{what}: not in the pages {missing:?}; only in the pages {unknown:?}"
    );
}

/// Returns the help of a program or of one of its commands.
fn help(program: &str, command: &[&str]) -> String {
    let mut help = without_stores(Command::new(program_named(program)));
    let output = help.args(command).arg("--help").output().unwrap();
    assert!(output.status.success(), "{program} {command:?} --help");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the flags of every command: `ovation`, its commands and their subcommands, and the four services.
fn commands() -> BTreeMap<Vec<String>, BTreeSet<String>> {
    let mut commands = BTreeMap::new();
    let mut pending: Vec<Vec<String>> = ["ovation", "rest-producer", "grpc-producer", "consumer", "results"]
        .map(|program| vec![program.to_owned()])
        .to_vec();
    while let Some(command) = pending.pop() {
        let names: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        let help = help(&command[0], &names);
        let is_option = |line: &&str| line.trim_start().starts_with('-');
        let options: String = help.lines().filter(is_option).map(|line| line.to_owned() + "\n").collect();
        let flags_of_line =
            |line: &str| flags_in(line.split("  ").find(|part| part.contains("--")).unwrap_or_default());
        let mut flags: BTreeSet<String> = options.lines().flat_map(flags_of_line).collect();
        flags.retain(|flag| flag != "help" && flag != "version");
        let subcommands =
            help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        for name in subcommands.filter(|line| line.starts_with("  ") && !line.starts_with("   ")) {
            let name = name.split_whitespace().next().unwrap();
            if name != "help" {
                pending.push([command.as_slice(), &[name.to_owned()]].concat());
            }
        }
        commands.insert(command, flags);
    }
    assert!(commands.len() > 15, "{:?}", commands.keys());
    commands
}

/// Returns the command lines of a page: the lines of code blocks, with continued lines joined, and the texts in
/// backticks.
fn command_lines(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (n, part) in page.split("```").enumerate() {
        if n % 2 == 1 {
            lines.extend(part.replace("\\\n", " ").lines().map(str::to_owned));
        } else {
            lines.extend(code_spans(part));
        }
    }
    lines
        .iter()
        .flat_map(|line| line.split(['|', ';', '#']).flat_map(|part| part.split("&&")).map(str::to_owned))
        .collect()
}

#[test]
fn the_pages_have_every_flag_and_every_flag_in_the_pages_exists() {
    let commands = commands();
    let pages = pages();
    let written: BTreeSet<String> = pages.iter().flat_map(|(_, page)| flags_in(page)).collect();
    let undocumented: Vec<_> = commands
        .iter()
        .flat_map(|(command, flags)| {
            flags.difference(&written).map(move |flag| format!("{} --{flag}", command.join(" ")))
        })
        .collect();
    assert!(undocumented.is_empty(), "flags in no page: {undocumented:?}");

    let mut used = 0;
    for (file, page) in &pages {
        for line in command_lines(page) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(at) = words.iter().position(|word| commands.contains_key([(*word).to_owned()].as_slice())) else {
                continue;
            };
            // The line runs the program if nothing is in front of the word, or only environment variables, or a command
            // that ends with `--` (`kubectl exec ... --`).
            let is_run = at == 0 || words[at - 1] == "--" || words[..at].iter().all(|word| word.contains('='));
            if !is_run {
                continue;
            }
            let mut command = vec![words[at].to_owned()];
            for word in &words[at + 1..] {
                let longer = [command.as_slice(), &[(*word).to_owned()]].concat();
                if !commands.contains_key(&longer) {
                    break;
                }
                command = longer;
            }
            for flag in flags_in(&words[at + 1..].join(" ")) {
                used += 1;
                let is_known = commands[&command].contains(&flag) || flag == "help" || flag == "version";
                assert!(is_known, "{file}: `{}` has no flag --{flag}: {line}", command.join(" "));
            }
        }
    }
    assert!(used > 40, "only {used} flags of command lines were found in the pages");
}

#[test]
fn the_pages_have_every_key_of_the_configuration_and_no_other_key() {
    let folder = tempfile::tempdir().unwrap();
    let keys_of = |file: &str| -> BTreeSet<String> {
        fs::write(folder.path().join("ovation.toml"), file).unwrap();
        let mut up = without_stores(Command::new(program_named("ovation")));
        let output = up.arg("up").current_dir(folder.path()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{error}");
        let known = error.split_once("expected").unwrap_or_else(|| panic!("{error:?} lists the keys")).1;
        // The message quotes each key by itself: `one of `data`, `vote_log`, ...`.
        words(known, is_name_sign).filter(|word| known.contains(&format!("`{word}`"))).map(str::to_owned).collect()
    };
    let page = read("docs/operations.md");
    let first_cells = |heading: &str| -> BTreeSet<String> {
        tables(&page, heading)
            .iter()
            .flat_map(|row| code_spans(&row[0]))
            .filter(|code| code.chars().all(is_name_sign))
            .collect()
    };
    let mut keys = keys_of("nonsense = 1\n");
    assert!(keys.remove("contests"), "{keys:?}");
    assert_same("keys of the configuration", &keys, &first_cells("## Configuration"));
    let contest = keys_of("[contests.finals]\nnonsense = 1\n");
    assert_same("keys of a contest", &contest, &first_cells("## Hold a contest"));
}

/// Returns the names of metrics that the sources register.
fn registered_metrics() -> BTreeSet<String> {
    // The sources in these folders read metrics, and register none.
    let readers = ["load/", "cli/", "tests/", "bench/", "client/", "fuzz/"];
    let sources = files(".rs").into_iter().filter(|file| {
        file.contains("/src/") && !file.contains("/tests") && !readers.iter().any(|reader| file.starts_with(reader))
    });
    let mut names = BTreeSet::new();
    for file in sources {
        let text = read(&file);
        let text = text.split("#[cfg(test)]").next().unwrap();
        for word in words(text, |sign| is_name_sign(sign) || sign == '"') {
            names.extend(word.split('"').filter(|name| name.starts_with("ovation_")).map(str::to_owned));
        }
    }
    names.retain(|name| is_metric(name));
    names
}

/// Returns whether a name that starts with `ovation_` is the name of a metric. Names of crates start like this, too.
fn is_metric(name: &str) -> bool {
    let endings = [
        "total",
        "seconds",
        "bytes",
        "ratio",
        "info",
        "up",
        "votes",
        "health",
        "streams",
        "partitions",
        "records",
        "queries",
        "bands",
        "stopped",
        "held",
        "replicas",
        "limit",
    ];
    name.rsplit('_').next().is_some_and(|last| endings.contains(&last))
}

/// Returns the documented metrics with their labels.
fn documented_metrics() -> BTreeMap<String, BTreeSet<String>> {
    let page = read("docs/metrics.md");
    let rows: Vec<Vec<String>> =
        ["## Every process", "## The producers and the results", "## The consumer", "## The results"]
            .iter()
            .flat_map(|heading| tables(&page, heading))
            .collect();
    let mut metrics = BTreeMap::new();
    for row in rows.iter().filter(|row| row.len() == 4) {
        for name in code_spans(&row[0]).into_iter().filter(|name| name.starts_with("ovation_")) {
            metrics.insert(name, code_spans(&row[2]).into_iter().collect());
        }
    }
    metrics
}

#[test]
fn the_pages_have_every_metric_and_every_metric_in_the_pages_exists() {
    let documented: BTreeSet<String> = documented_metrics().into_keys().collect();
    assert_same("metrics", &registered_metrics(), &documented);
    // Every metric that a page, a dashboard or a rule names exists.
    for file in [".md", ".py", ".yml", ".yaml", ".json"].into_iter().flat_map(files) {
        let text = read(&file);
        for name in words(&text, is_name_sign).filter(|word| word.starts_with("ovation_") && is_metric(word)) {
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            assert!(documented.contains(base), "{file} names the metric {name}, which does not exist");
        }
    }
}

#[test]
fn the_metrics_of_a_running_system_have_the_documented_labels() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::start(&folder.path().join("data"));
    let (status, response) = system.post(&json!({ "name": "Queen", "album": "Jazz" }));
    assert_eq!(status, 202, "{response}");
    system.wait_until_counted();
    let documented = documented_metrics();
    let metrics = get_text(&format!("http://{}/metrics", system.addresses.admin));
    let mut found = BTreeSet::new();
    for line in metrics.lines().filter(|line| line.starts_with("ovation_")) {
        let (name, labels) = line
            .split_once('{')
            .map_or((line.split(' ').next().unwrap(), ""), |(name, rest)| (name, rest.rsplit_once('}').unwrap().0));
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).filter(|base| documented.contains_key(*base)));
        let base = base.unwrap_or(name);
        // The value of a label may contain any character, so the labels are split at the quotes.
        let mut names: BTreeSet<String> =
            labels.split('"').step_by(2).map(|part| part.trim_matches([',', '=']).to_owned()).collect();
        names.retain(|label| !label.is_empty() && label != "le" && label != "quantile");
        let expected = documented.get(base).unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        assert_eq!(&names, expected, "the labels of {name} in docs/metrics.md");
        found.insert(base.to_owned());
    }
    assert!(found.len() > 25, "{found:?}");
    system.stop();
}

fn get_text(url: &str) -> String {
    ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
}

/// Adds the names of the properties of all schemas in a part of an `OpenAPI` document to `names`.
fn add_properties(part: &Value, names: &mut BTreeSet<String>) {
    match part {
        Value::Object(members) => {
            for (key, value) in members {
                if key == "properties"
                    && let Value::Object(properties) = value
                {
                    names.extend(properties.keys().cloned());
                }
                add_properties(value, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| add_properties(item, names)),
        _ => {}
    }
}

#[test]
fn the_pages_have_every_field_of_the_interfaces_and_no_other_field() {
    let folder = tempfile::tempdir().unwrap();
    let mut system = System::start(&folder.path().join("data"));
    let mut fields = BTreeSet::new();
    for address in [system.addresses.rest, system.addresses.results] {
        add_properties(&get(&format!("http://{address}/openapi.json")), &mut fields);
    }
    system.stop();
    assert!(fields.len() > 40, "{fields:?}");
    let page = read("docs/api.md") + &read("docs/operations.md");
    let code: Vec<String> = {
        let blocks = page.split("```").skip(1).step_by(2).map(str::to_owned);
        blocks.chain(page.split("```").step_by(2).flat_map(code_spans)).collect()
    };
    let written: BTreeSet<String> = code.iter().flat_map(|code| words(code, is_name_sign)).map(str::to_owned).collect();
    let missing: Vec<_> = fields.difference(&written).collect();
    assert!(missing.is_empty(), "fields of the interfaces that no page names: {missing:?}");
    // The keys of the map `producers` are values, not names of fields.
    fields.extend(["rest", "grpc", "import"].map(str::to_owned));
    // The members of the JSON objects in the pages exist. A member is `"name"` in front of a colon, a comma or the end
    // of the object.
    for object in code.iter().filter(|code| code.contains("{\"")) {
        let parts: Vec<&str> = object.split('"').collect();
        for at in (1..parts.len() - 1).step_by(2) {
            let (before, name, after) = (parts[at - 1], parts[at], parts[at + 1]);
            let is_member = after.trim_start().starts_with([':', ',', '}']) && before.trim_end().ends_with(['{', ',']);
            let is_value = before.trim_end().ends_with([':', '[']);
            if is_member && !is_value && name.chars().all(is_name_sign) {
                assert!(fields.contains(name), "the pages have the field {name:?}, which no interface has: {object}");
            }
        }
    }
}

#[test]
fn the_stores_have_the_names_of_the_pages() {
    let page = read("docs/stores.md");
    // Redis: the part of a key between the prefix and the variable part.
    let name_of = |key: &str| words(key, |sign| sign.is_ascii_lowercase()).next().unwrap_or_default().to_owned();
    let documented: BTreeSet<String> = tables(&page, "## Redis")
        .iter()
        .flat_map(|row| code_spans(&row[0]))
        .filter_map(|key| Some(name_of(key.strip_prefix("{ovation}:")?)))
        .collect();
    let keys = read("stores/redis/src/keys.rs");
    let used: BTreeSet<String> = keys
        .lines()
        .filter(|line| line.contains("self.tag"))
        .filter_map(|line| line.trim().strip_prefix("format!(\"{}:"))
        .map(name_of)
        .collect();
    assert_same("keys in Redis", &used, &documented);

    // MongoDB: the fields of the documents.
    let source = read("stores/mongo/src/document.rs");
    let written: BTreeSet<String> =
        source.split("append(cstr!(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    let words_of_page: BTreeSet<String> = code_spans(&page)
        .iter()
        .flat_map(|code| words(code, is_name_sign).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let missing: Vec<_> = written.difference(&words_of_page).collect();
    assert!(
        written.len() > 10 && missing.is_empty(),
        "fields in MongoDB that docs/stores.md does not name: {missing:?}"
    );
    let sources: String = [
        "document",
        "ledger",
        "duplicates",
        "retention",
        "summary/mod",
        "summary/parts",
        "connect",
        "datasets",
        "imports",
    ]
    .map(|file| read(&format!("stores/mongo/src/{file}.rs")))
    .concat();
    let fields = tables(&page, "## MongoDB");
    let fields = fields
        .iter()
        .filter(|row| row.len() == 3)
        .flat_map(|row| code_spans(&row[0]))
        .filter(|code| code.chars().all(is_name_sign));
    for field in fields {
        assert!(
            sources.contains(&format!("\"{field}\"")),
            "docs/stores.md has the field {field:?}, which stores-mongo does not use"
        );
    }

    // SQLite: the schemas use the glossary's words for dead letters and duplicates.
    let schemas = ["log", "count", "datasets"].map(|file| read(&format!("stores/sqlite/src/{file}.sql"))).concat();
    assert!(
        schemas.contains("CREATE TABLE dead_letters") && schemas.contains("CREATE TABLE duplicates"),
        "the tables of dead letters and duplicates have other names"
    );
}
