"""Runs the queries of a dashboard on a Prometheus server as Grafana does, with the variables and macros filled in."""

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def seconds(text):
    """Returns the length of `5m` or `1h30m`."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    if "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text} is not a length of time, such as 5m")
    return sum(int(number) * SECONDS[unit] for number, unit in parts)


def dashboards():
    """Returns the dashboards in `dashboards/`."""
    boards = []
    for path in sorted((FOLDER / "dashboards").glob("*.json")):
        try:
            boards.append(json.loads(path.read_text()))
        except json.JSONDecodeError as error:
            raise SystemExit(f"grafana/dashboards/{path.name} is not valid JSON: {error}") from error
    return boards


def panels(dashboard):
    """Yields the panels of a dashboard, including those of collapsed rows, without the rows themselves."""
    for panel in dashboard["panels"]:
        yield from panel.get("panels", [])
        if panel["type"] != "row":
            yield panel


def scrape_interval():
    """Returns the scrape interval of the provisioned data source, in seconds."""
    text = (FOLDER / "provisioning/datasources/prometheus.yaml").read_text()
    return seconds(re.search(r"timeInterval: (\S+)", text)[1])


class Prometheus:
    """A client of a Prometheus server. It queries the `span` of seconds that ends at the time `at`."""

    def __init__(self, url, at, span, scrape):
        self.url, self.at, self.span, self.scrape = url.rstrip("/"), at, span, scrape

    def get(self, path, **query):
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error).get("error", error)) from error

    def step(self, points=1000):
        """Returns Grafana's `$__interval`: one point for each pixel, but at least the scrape interval and one second."""
        return max(math.ceil(self.span / points), self.scrape, 1)

    def macros(self, points=1000):
        step = self.step(points)
        return {
            "__interval": f"{step:g}s",
            "__interval_ms": f"{step * 1000:g}",
            "__rate_interval": f"{max(step + self.scrape, 4 * self.scrape):g}s",
            "__range": f"{self.span:g}s",
            "__range_s": f"{self.span:g}",
            "__range_ms": f"{self.span * 1000:g}",
        }

    def range(self, expr, step):
        data = self.get("query_range", query=expr, start=self.at - self.span, end=self.at, step=step)
        return [(series["metric"], [float(value) for _, value in series["values"]]) for series in data["result"]]

    def instant(self, expr):
        data = self.get("query", query=expr, time=self.at)
        if data["resultType"] == "scalar":
            return [({}, [float(data["result"][1])])]
        return [(series["metric"], [float(series["value"][1])]) for series in data["result"]]

    def label_values(self, metric, label):
        return self.get(f"label/{label}/values", **{"match[]": metric}, start=self.at - self.span, end=self.at)


@dataclass
class Query:
    """One query of a dashboard and its result: (labels, values) for each series, or the values of a variable.

    `panel` is the title of the panel, or names the variable or annotation. `template` is the query before variables are filled in."""

    dashboard: str
    panel: str
    legend: str
    template: str
    expr: str
    result: list | None = None
    skipped: str = ""
    error: str = ""

    @property
    def finite(self):
        return [v for _, values in self.result or [] for v in values if math.isfinite(v)]

    @property
    def ok(self):
        return not self.error and bool(self.finite)


def fill(expr, values):
    """Replaces `$name`, `${name}` and `${name:format}` in an expression. An unknown name stays, so that Prometheus reports it as an error."""
    return re.sub(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)", lambda found: values.get(found[1] or found[2], found[0]), expr)


def variables(dashboard, prometheus, chosen):
    """Returns the values of the variables when the dashboard opens, and the queries that they made. `chosen` replaces values."""
    values, made = {}, []
    for variable in dashboard["templating"]["list"]:
        name, current = variable["name"], variable["current"].get("value")
        if variable["type"] == "query":
            text = fill(variable["query"]["query"], values)
            metric, label = re.fullmatch(r"label_values\((.+), *(\w+)\)", text).groups()
            query = Query(dashboard["title"], f"${name}", "", text, text)
            try:
                found = prometheus.label_values(metric, label)
                query.result = [({label: one}, [1.0]) for one in found]
            except ValueError as error:
                found, query.error = [], str(error)
            made.append(query)
            if current in ("$__all", ["$__all"]):
                current = variable["allValue"]
            else:
                current = current or (found[0] if found else "")
        values[name] = chosen.get(name, current)
    return values, made


def run(dashboard, prometheus, chosen=None, history=True, without=()):
    """Runs every query of a dashboard and yields it with its result.

    Without `history`, queries of an earlier period are skipped. A query without a result counts as skipped if it names a metric that
    begins with one of `without`."""
    values, made = variables(dashboard, prometheus, chosen or {})
    yield from made
    for panel in panels(dashboard):
        points = panel.get("maxDataPoints", 1000)
        known = {**values, **prometheus.macros(points)}
        for target in panel["targets"]:
            expr = fill(target["expr"], known)
            query = Query(dashboard["title"], panel["title"], target["legendFormat"], target["expr"], expr)
            if not history and "offset $compare" in target["expr"]:
                query.skipped = "needs history"
            else:
                try:
                    query.result = prometheus.instant(expr) if target["instant"] else prometheus.range(expr, prometheus.step(points))
                except ValueError as error:
                    query.error = str(error)
                missing = [start for start in without if re.search(rf"\b{re.escape(start)}", target["expr"])]
                if missing and not query.error and not query.finite:
                    query.skipped = f"without {missing[0]}"
            yield query
    for annotation in dashboard["annotations"]["list"]:
        # An annotation marks alerts. It has no result while no alert fires, so only its syntax is checked.
        query = Query(dashboard["title"], f"annotation {annotation['name']}", "", annotation["expr"], fill(annotation["expr"], values))
        try:
            prometheus.range(query.expr, prometheus.step())
            query.result = [({}, [0.0])]
        except ValueError as error:
            query.error = str(error)
        yield query
