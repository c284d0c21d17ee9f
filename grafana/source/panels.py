"""What Grafana wants of a dashboard (its JSON schema v1), so that `make` only has to say what is shown.

A panel is made by one call: `kind(title, description, unit, {legend: query, ...})`. `w` and `h` are its width and height on
Grafana's grid of 24 columns; panels flow from left to right and wrap, in the order in which they are written.
"""

import itertools

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(kind, title, description, unit, queries, *, w, h=8, instant=False, format="time_series", field=None, custom=None, options=None,
          **more):
    """A panel of any kind. `field` adds to the settings of its values, `custom` to those that only this kind knows."""
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": {"w": w, "h": h},
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": SOURCE,
                "editorMode": "code",
                "expr": expr,
                "legendFormat": legend,
                "format": format,
                "instant": instant,
                "range": not instant,
            }
            for i, (legend, expr) in enumerate(queries.items())
        ],
        "fieldConfig": {"defaults": {"unit": unit, "custom": custom or {}, **(field or {})}, "overrides": []},
        "options": options or {},
        **more,
    }


def series(title, description, unit, queries, *, w=8, h=8, stacked=False, min=0, max=None, log=False, **more):
    """Lines over time, with a table of their last and greatest values for a legend."""
    custom = {"lineWidth": 1, "fillOpacity": 40 if stacked else 8, "showPoints": "never", "spanNulls": False,
              "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
    if log:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    field = {"color": {"mode": "palette-classic-by-name"}}
    if not log:
        field["min"] = min
    if max is not None:
        field["max"] = max
    options = {"legend": {"showLegend": True, "displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, description, unit, queries, w=w, h=h, field=field, custom=custom, options=options, **more)


def stat(title, description, unit, queries, *, w=4, h=4, decimals=None, steps=None, names=None, **more):
    """The values of now, as numbers. `steps` colour them: {lower bound: colour}, the first bound None; `names` put words in their place."""
    field = {"color": {"mode": "thresholds"}, "thresholds": thresholds(steps or {None: "blue"}), "mappings": mappings(names)}
    if decimals is not None:
        field["decimals"] = decimals
    options = {"reduceOptions": LAST, "colorMode": "value", "graphMode": "none", "textMode": "value_and_name", "justifyMode": "auto",
               "orientation": "auto", "wideLayout": True}
    return panel("stat", title, description, unit, queries, w=w, h=h, instant=True, field=field, options=options, **more)


def race(title, description, unit, label, query, *, w=12, h=12, **more):
    """Bars, the longest first, one for each value of `label`, which keeps its colour when it overtakes.

    A series of a bar gauge stands where the answer has it. Rows can be sorted, and then be made the fields that get colours."""
    transformations = [
        {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": "Value", "desc": True}]}},
        {"id": "rowsToFields", "options": {"mappings": [
            {"fieldName": label, "handlerKey": "field.name"},
            {"fieldName": "Value", "handlerKey": "field.value"},
            {"fieldName": "Time", "handlerKey": "__ignore"},
        ]}},
    ]
    options = {"reduceOptions": LAST, "orientation": "horizontal", "displayMode": "gradient", "valueMode": "color", "showUnfilled": True,
               "namePlacement": "auto", "sizing": "auto", "minVizHeight": 16, "minVizWidth": 8,
               "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []}}
    field = {"color": {"mode": "palette-classic-by-name"}, "min": 0}
    return panel("bargauge", title, description, unit, {"{{" + label + "}}": query}, w=w, h=h, instant=True, format="table", field=field,
                 options=options, transformations=transformations, **more)


def pie(title, description, unit, queries, *, w=12, h=12, **more):
    """Parts of a whole."""
    options = {"reduceOptions": LAST, "pieType": "donut", "displayLabels": ["percent"], "tooltip": {"mode": "multi", "sort": "desc"},
               "legend": {"showLegend": True, "displayMode": "table", "placement": "right", "values": ["value", "percent"]}}
    field = {"color": {"mode": "palette-classic-by-name"}}
    return panel("piechart", title, description, unit, queries, w=w, h=h, instant=True, field=field, options=options, **more)


def heat(title, description, unit, buckets, *, w=12, h=9, **more):
    """A histogram over time; `buckets` asks for its buckets by `le`."""
    options = {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5,
                                                          "steps": 64, "reverse": False, "fill": "dark-orange"},
               "cellValues": {"unit": "short"}, "filterValues": {"le": 1e-9}, "rowsFrame": {"layout": "auto"}, "showValue": "never",
               "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False}, "legend": {"show": True},
               "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True}, "exemplars": {"color": "rgba(255,0,255,0.7)"}}
    return panel("heatmap", title, description, "short", {"{{le}}": buckets}, w=w, h=h, format="heatmap", options=options,
                 maxDataPoints=120, **more)


def states(title, description, unit, queries, names, *, w=12, h=8, **more):
    """What was the case when. `names` says what the values mean: {value: (word, colour)}."""
    options = {"mergeValues": True, "showValue": "auto", "alignValue": "left", "rowHeight": 0.9,
               "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "single", "sort": "none"}}
    field = {"color": {"mode": "thresholds"}, "thresholds": thresholds({None: "text"}), "mappings": mappings(names)}
    return panel("state-timeline", title, description, unit, queries, w=w, h=h, field=field, custom={"fillOpacity": 70, "lineWidth": 0},
                 options=options, **more)


def table(title, description, unit, queries, *, w=12, h=9, **more):
    """A row for each set of labels, and a column for each query, under its legend."""
    columns = {f"Value #{chr(ord('A') + i)}": name for i, name in enumerate(queries)}
    transformations = [
        {"id": "merge", "options": {}},
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": {}, "renameByName": columns}},
        {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": next(iter(queries)), "desc": True}]}},
    ]
    options = {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"], "fields": ""}}
    return panel("table", title, description, unit, queries, w=w, h=h, instant=True, format="table", options=options,
                 transformations=transformations, custom={"align": "auto", "cellOptions": {"type": "auto"}}, **more)


LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def thresholds(steps):
    return {"mode": "absolute", "steps": [{"value": bound, "color": colour} for bound, colour in steps.items()]}


def mappings(names):
    if not names:
        return []
    options = {str(value): {"text": word, "color": colour, "index": i} for i, (value, (word, colour)) in enumerate(names.items())}
    return [{"type": "value", "options": options}]


def from_labels(name, label, metric, description, *, all=True):
    """A variable with the values that a label has; with `all`, any number of them, and all at first."""
    query = f"label_values({metric}, {label})"
    chosen = {"current": {"text": ["All"], "value": ["$__all"]}, "allValue": ".*"} if all else {"current": {}}
    return {"name": name, "type": "query", "label": name, "description": description, "datasource": SOURCE, "definition": query,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": all, "includeAll": all, "options": [], "regex": "",
            "hide": 0, **chosen}


def from_list(name, kind, values, chosen, description):
    """A variable with fixed values: `kind` is `interval` for lengths of time, or `custom`."""
    return {"name": name, "type": kind, "label": name, "description": description, "query": ",".join(values), "hide": 0,
            "current": {"text": chosen, "value": chosen},
            "options": [{"text": value, "value": value, "selected": value == chosen} for value in values],
            **({"auto": False, "auto_count": 30, "auto_min": "10s", "refresh": 2} if kind == "interval" else
               {"multi": False, "includeAll": False})}


# Which Prometheus: the provisioned one at first, or any other that this Grafana knows.
DATASOURCE = {"name": "datasource", "type": "datasource", "label": "data source", "description": "the Prometheus that is asked",
              "query": "prometheus", "regex": "", "refresh": 1, "hide": 0, "multi": False, "includeAll": False, "options": [],
              "current": {"text": "Prometheus", "value": "prometheus"}}


def dashboard(uid, title, description, variables, rows, *, alerts, last):
    """A dashboard of `rows`: {title: panels}. A title that ends with an ellipsis is of a row that stays closed until it is clicked.
    `alerts` asks for what is marked over time."""
    numbers = itertools.count(1)
    panels, top = [], 0
    for name, inside in rows.items():
        closed = name.endswith("…")
        row = {"type": "row", "id": next(numbers), "title": name.rstrip("… "), "collapsed": closed, "panels": [],
               "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}}
        top += 1
        left = height = 0
        for one in inside:
            place = one["gridPos"]
            if left + place["w"] > 24:
                top, left, height = top + height, 0, 0
            one["gridPos"] = {"x": left, "y": top, **place}
            left, height = left + place["w"], max(height, place["h"])
        top += height
        inside = [{"id": next(numbers), **one} for one in inside]
        panels += [{**row, "panels": inside}] if closed else [row, *inside]
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["ovation"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": f"now-{last}", "to": "now"},
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m", "5m"]},
        "timezone": "browser",
        "weekStart": "",
        "fiscalYearStartMonth": 0,
        "links": [{"type": "dashboards", "title": "Ovation", "tags": ["ovation"], "asDropdown": False, "includeVars": True, "keepTime": True,
                   "targetBlank": False, "icon": "external link", "tooltip": "", "url": ""}],
        "annotations": {"list": [{"name": "Alerts", "datasource": SOURCE, "enable": True, "hide": False, "iconColor": "red",
                                  "expr": alerts, "step": "30s", "titleFormat": "{{alertname}}",
                                  "textFormat": "{{job}} {{instance}}", "tagKeys": "severity"}]},
        "templating": {"list": [DATASOURCE, *variables]},
        "panels": panels,
    }
