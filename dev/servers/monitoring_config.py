"""Writes the configuration of the stack's Prometheus and Alertmanager: the files under grafana/, with the ports and intervals of the stack.
It can divide all times by a factor, so that a test does not have to wait for minutes."""

import json
import re

from processes import ROOT

GRAFANA = ROOT / "grafana"

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION = r"(?:\d+(?:ms|[smhdw]))+"
# Matches a range, a subquery or an offset in a PromQL expression.
PROMQL_TIMES = re.compile(rf"(?P<range>\[)(?P<length>{DURATION})(?P<step>:{DURATION})?\]|(?P<offset>offset )(?P<back>{DURATION})")
# Matches a YAML key whose value is a duration.
YAML_TIMES = re.compile(rf"(?m)^(\s*(?:- )?(?:for|keep_firing_for|group_wait|group_interval|repeat_interval|resolve_timeout): )({DURATION})[ \t]*$")

# The shortest window, in seconds. With a scrape every second, a shorter window has too few samples.
MIN_WINDOW = 5


def divide_duration(duration, speed, minimum):
    """Returns the duration divided by the speed, in whole seconds, at least `minimum`. With speed 1, returns it unchanged."""
    seconds = sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", duration))
    return duration if speed == 1 else f"{max(round(seconds / speed), minimum)}s"


def divide_times(text, speed):
    """Returns the text of a rules file, or of Alertmanager's configuration, with all times divided by the speed."""

    def divide_match(found):
        if found["offset"]:
            return found["offset"] + divide_duration(found["back"], speed, MIN_WINDOW)
        step = f":{divide_duration(found['step'][1:], speed, 1)}" if found["step"] else ""
        return f"[{divide_duration(found['length'], speed, MIN_WINDOW)}{step}]"

    # The horizon of predict_linear is a number of seconds, not a duration.
    text = re.sub(r"\b(\d+) \* 3600\b", lambda found: f"{found[1]} * {3600 / speed:g}", text)
    text = YAML_TIMES.sub(lambda found: found[1] + divide_duration(found[2], speed, 1), text)
    # Times in summaries, descriptions and comments are not changed.
    return "".join(line if re.match(r"\s*(summary|description|#)", line) else PROMQL_TIMES.sub(divide_match, line) for line in text.splitlines(keepends=True))


def write_prometheus(folder, targets, scrape, speed, alertmanager, stores):
    """Writes Prometheus' configuration into the folder and returns the path of its main file. Existing targets of our programs are not changed.

    `targets` is the folder of the targets, `scrape` the interval, `speed` the divisor of times, `alertmanager` the port of Alertmanager, and
    `stores` the ports of exporters, each with the labels of its target."""
    rules = folder / "rules"
    rules.mkdir(parents=True, exist_ok=True)
    for old in rules.iterdir():
        old.unlink()
    for file in (GRAFANA / "prometheus/rules").glob("*.yml"):
        (rules / file.name).write_text(divide_times(file.read_text(), speed))

    targets.mkdir(exist_ok=True)
    groups = [{"targets": [f"127.0.0.1:{port}"], "labels": labels} for port, labels in stores]
    (targets / "stores.json").write_text(json.dumps(groups, indent=2))
    if not any(file.name != "stores.json" for file in targets.glob("*.json")):
        (targets / "ovation.json").write_text((GRAFANA / "prometheus/targets/ovation.json").read_text())
    (folder / "alertmanagers.json").write_text(json.dumps([{"targets": [f"127.0.0.1:{alertmanager}"]}]))

    text = (GRAFANA / "prometheus/prometheus.yml").read_text()
    text = re.sub(r"(scrape_interval|evaluation_interval): \S+", rf"\1: {scrape}", text)
    text = text.replace("targets/*.json", f"{targets}/*.json")
    if scrape != "5s":
        # The scrape of a target that hangs times out before the next one.
        text = re.sub(r"scrape_timeout: \S+", f"scrape_timeout: {scrape}", text)
    config = folder / "prometheus.yml"
    config.write_text(text)
    return config


def write_alertmanager(folder, speed, webhook):
    """Writes Alertmanager's configuration into the folder and returns its path. The routes are those of grafana/alertmanager. Each receiver
    posts to the webhook, at a path that is the name of the receiver. Without a webhook, the receivers post nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    head, receivers = (GRAFANA / "alertmanager/alertmanager.yml").read_text().split("\nreceivers:\n")
    head = re.sub(r"(?m)^templates:\n(  .*\n)+", "", head)
    lines = ["", "receivers:"]
    for name in re.findall(r"(?m)^  - name: (\S+)$", receivers):
        lines.append(f"  - name: {name}")
        if webhook:
            lines += ["    webhook_configs:", f"      - url: {webhook.rstrip('/')}/{name}", "        send_resolved: true"]
    config = folder / "alertmanager.yml"
    config.write_text(divide_times(head, speed) + "\n".join(lines) + "\n")
    return config
