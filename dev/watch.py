"""What dev/stack hands to the Prometheus and the Alertmanager that it starts: the files under grafana/, with ports and
intervals of the stack, and where asked for so much quicker that a test need not wait for minutes."""

import json
import re
from pathlib import Path

GRAFANA = Path(__file__).resolve().parent.parent / "grafana"

SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION = r"(?:\d+(?:ms|[smhdw]))+"
# A range or subquery, an offset, or a time that a key of YAML gives.
TIMES = re.compile(rf"(?P<range>\[)(?P<length>{DURATION})(?P<step>:{DURATION})?\]|(?P<offset>offset )(?P<back>{DURATION})")
KEYS = re.compile(rf"(?m)^(\s*(?:- )?(?:for|keep_firing_for|group_wait|group_interval|repeat_interval|resolve_timeout): )({DURATION})[ \t]*$")

# Below that a window of a flow that is scraped every second holds too few samples.
SHORTEST_WINDOW = 5


def quick(duration, speed, least):
    """The duration divided by the speed, in whole seconds."""
    seconds = sum(int(number) * SECONDS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", duration))
    return duration if speed == 1 else f"{max(round(seconds / speed), least)}s"


def quicken(text, speed):
    """A file of rules, or Alertmanager's configuration, with all its times divided by the speed."""

    def time(found):
        if found["offset"]:
            return found["offset"] + quick(found["back"], speed, SHORTEST_WINDOW)
        step = f":{quick(found['step'][1:], speed, 1)}" if found["step"] else ""
        return f"[{quick(found['length'], speed, SHORTEST_WINDOW)}{step}]"

    # How far predict_linear looks ahead, which is a number.
    text = re.sub(r"\b(\d+) \* 3600\b", lambda found: f"{found[1]} * {3600 / speed:g}", text)
    text = KEYS.sub(lambda found: found[1] + quick(found[2], speed, 1), text)
    # Sentences for people keep their times.
    return "".join(line if re.match(r"\s*(summary|description|#)", line) else TIMES.sub(time, line) for line in text.splitlines(keepends=True))


def prometheus(folder, targets, scrape, speed, alertmanager, stores):
    """Writes Prometheus' configuration into the folder and returns its file. Targets of our programs are left as they are
    where somebody wrote some."""
    rules = folder / "rules"
    rules.mkdir(parents=True, exist_ok=True)
    for old in rules.iterdir():
        old.unlink()
    for file in (GRAFANA / "prometheus/rules").glob("*.yml"):
        (rules / file.name).write_text(quicken(file.read_text(), speed))

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
        # A target that hangs is given up before the next scrape of it.
        text = re.sub(r"scrape_timeout: \S+", f"scrape_timeout: {scrape}", text)
    config = folder / "prometheus.yml"
    config.write_text(text)
    return config


def alertmanager(folder, speed, webhook):
    """Writes Alertmanager's configuration into the folder and returns its file. Its routes are those of production; each receiver
    posts to the webhook, at a path that is the receiver's name, or to nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    head, receivers = (GRAFANA / "alertmanager/alertmanager.yml").read_text().split("\nreceivers:\n")
    head = re.sub(r"(?m)^templates:\n(  .*\n)+", "", head)
    lines = ["", "receivers:"]
    for name in re.findall(r"(?m)^  - name: (\S+)$", receivers):
        lines.append(f"  - name: {name}")
        if webhook:
            lines += ["    webhook_configs:", f"      - url: {webhook.rstrip('/')}/{name}", "        send_resolved: true"]
    config = folder / "alertmanager.yml"
    config.write_text(quicken(head, speed) + "\n".join(lines) + "\n")
    return config
