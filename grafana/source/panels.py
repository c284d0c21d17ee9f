"""Builds the JSON of Grafana's dashboards (its schema v1).

A call builds a panel: `kind(title, description, unit, {legend: query, ...})`. `w` and `h` are its width and height on Grafana's grid of 24
columns. Panels are placed from left to right, in the order of the calls. A panel that does not fit is placed at the beginning of the next line.
"""

import itertools

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(kind, title, description, unit, queries, *, w, h=8, instant=False, format="time_series", field=None, custom=None, options=None,
          **more):
    """Returns a panel of any kind. `field` adds settings for the values, and `custom` adds settings that only this kind of panel has."""
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
    """Returns a graph of lines over time. Its legend is a table with the last and the highest value of each line."""
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
    """Returns a panel of current values. `steps` sets their colours: {lower bound: colour}, where the first bound is None. `names` replaces
    values by words: {value: (word, colour)}."""
    field = {"color": {"mode": "thresholds"}, "thresholds": thresholds(steps or {None: "blue"}), "mappings": mappings(names)}
    if decimals is not None:
        field["decimals"] = decimals
    options = {"reduceOptions": LAST, "colorMode": "value", "graphMode": "none", "textMode": "value_and_name", "justifyMode": "auto",
               "orientation": "auto", "wideLayout": True}
    return panel("stat", title, description, unit, queries, w=w, h=h, instant=True, field=field, options=options, **more)


def ranked_bars(title, description, unit, label, query, *, w=12, h=12, **more):
    """Returns a panel with a bar for each value of `label`, the longest bar first. The colour of a value does not depend on the order.

    Grafana's bar gauge shows series in the order of the response. So the transformations sort the rows, and convert each row to a field, which
    has a colour of its own."""
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
    """Returns a pie chart of the parts of a whole."""
    options = {"reduceOptions": LAST, "pieType": "donut", "displayLabels": ["percent"], "tooltip": {"mode": "multi", "sort": "desc"},
               "legend": {"showLegend": True, "displayMode": "table", "placement": "right", "values": ["value", "percent"]}}
    field = {"color": {"mode": "palette-classic-by-name"}}
    return panel("piechart", title, description, unit, queries, w=w, h=h, instant=True, field=field, options=options, **more)


def heat(title, description, unit, buckets, *, w=12, h=9, **more):
    """Returns a heat map of a histogram over time. `buckets` is a query for its buckets, by `le`."""
    options = {"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5,
                                                          "steps": 64, "reverse": False, "fill": "dark-orange"},
               "cellValues": {"unit": "short"}, "filterValues": {"le": 1e-9}, "rowsFrame": {"layout": "auto"}, "showValue": "never",
               "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False}, "legend": {"show": True},
               "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": True}, "exemplars": {"color": "rgba(255,0,255,0.7)"}}
    return panel("heatmap", title, description, "short", {"{{le}}": buckets}, w=w, h=h, format="heatmap", options=options,
                 maxDataPoints=120, **more)


def states(title, description, unit, queries, names, *, w=12, h=8, **more):
    """Returns a timeline of states. `names` has the words for the values: {value: (word, colour)}."""
    options = {"mergeValues": True, "showValue": "auto", "alignValue": "left", "rowHeight": 0.9,
               "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "single", "sort": "none"}}
    field = {"color": {"mode": "thresholds"}, "thresholds": thresholds({None: "text"}), "mappings": mappings(names)}
    return panel("state-timeline", title, description, unit, queries, w=w, h=h, field=field, custom={"fillOpacity": 70, "lineWidth": 0},
                 options=options, **more)


def table(title, description, unit, queries, *, w=12, h=9, **more):
    """Returns a table with a row for each set of labels and a column for each query. The legend of a query is the title of its column."""
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
    """Returns a variable with the values of a label. With `all`, users can select several values, and all are selected by default."""
    query = f"label_values({metric}, {label})"
    chosen = {"current": {"text": ["All"], "value": ["$__all"]}, "allValue": ".*"} if all else {"current": {}}
    return {"name": name, "type": "query", "label": name, "description": description, "datasource": SOURCE, "definition": query,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": all, "includeAll": all, "options": [], "regex": "",
            "hide": 0, **chosen}


def from_list(name, kind, values, chosen, description):
    """Returns a variable with fixed values. `kind` is `interval` for time spans, else `custom`."""
    return {"name": name, "type": kind, "label": name, "description": description, "query": ",".join(values), "hide": 0,
            "current": {"text": chosen, "value": chosen},
            "options": [{"text": value, "value": value, "selected": value == chosen} for value in values],
            **({"auto": False, "auto_count": 30, "auto_min": "10s", "refresh": 2} if kind == "interval" else
               {"multi": False, "includeAll": False})}


# Selects the Prometheus server: the provisioned one by default, or another data source of this Grafana.
DATASOURCE = {"name": "datasource", "type": "datasource", "label": "data source", "description": "The Prometheus server to query.",
              "query": "prometheus", "regex": "", "refresh": 1, "hide": 0, "multi": False, "includeAll": False, "options": [],
              "current": {"text": "Prometheus", "value": "prometheus"}}


def dashboard(uid, title, description, variables, rows, *, alerts, last):
    """Returns a dashboard of `rows`, which are {title: panels}. If a title ends with an ellipsis, the row is collapsed at first. The graphs mark
    the results of the query `alerts`. `last` is the default time span."""
    numbers = itertools.count(1)
    panels, top = [], 0
    for name, inside in rows.items():
        closed = name.endswith("…")
        row = {"type": "row", "id": next(numbers), "title": name.rstrip("… "), "collapsed": closed, "panels": [],
               "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}}
        top += 1
        left = height = 0
        for one in inside:
            size = one["gridPos"]
            if left + size["w"] > 24:
                top, left, height = top + height, 0, 0
            one["gridPos"] = {"x": left, "y": top, **size}
            left, height = left + size["w"], max(height, size["h"])
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
