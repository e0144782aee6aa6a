// The evidence of a case in a dialog. All text is set as text: nothing is parsed as HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

function makeTable(caption, head, rows) {
  const body = rows.map((row) =>
    make("tr", {}, ...row.map((cell, i) => make(i ? "td" : "th", i ? {} : { scope: "row" }, cell))),
  );
  const titles = head.map((title) => make("th", { scope: "col" }, title));
  const table = make(
    "table",
    { class: "plain" },
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...titles)),
    make("tbody", {}, ...body),
  );
  return make("div", { class: "scroll" }, table);
}

function makeFacts(facts) {
  const pairs = facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
  return make("dl", { class: "facts" }, ...pairs);
}

function makeMeter(limit) {
  if (limit.used === null) return "";
  const share = `${Math.round(100 * limit.used)} % of the limit used up`;
  const filled = make("i");
  filled.style.width = `${Math.min(100, 100 * limit.used)}%`;
  const tone = limit.outcome === "passed" ? "passed" : limit.outcome;
  return make("div", { class: `meter ${tone}`, role: "img", "aria-label": share, title: share }, filled);
}

function makeLimits(limits) {
  const intervals = limits.some((limit) => limit.interval);
  const interval = intervals ? ["interval"] : [];
  const head = ["limit", "measured", "must be", ...interval, "from", "", "used up"];
  const rows = limits.map((limit) => [
    limit.name,
    limit.measured,
    limit.limit,
    ...(intervals ? [limit.interval] : []),
    limit.origin,
    make("span", { class: `badge ${limit.outcome}` }, limit.outcome),
    makeMeter(limit),
  ]);
  return makeTable("Limits", head, rows);
}

function makeChart(chart) {
  const place = make("div", { class: "chart", role: "img", "aria-label": `${chart.title}. ${chart.note}` });
  const box = make("section", {}, make("h3", {}, chart.title), place, make("p", { class: "muted" }, chart.note));
  const datasets = { values: chart.values, marks: chart.marks ?? [] };
  const start = () =>
    draw(place, chart.kind, datasets, (spec) => {
      if (chart.kind === "latency") {
        spec.layer[0].encoding.x.title = `time of one inference, ${chart.unit}`;
      }
      if (chart.kind === "live") spec.height = 22 * chart.values.length;
    });
  return [box, place, start];
}

function makeTrend(series, runs) {
  const title = series.unit ? `${series.metric}, ${series.unit}` : series.metric;
  const place = make("div", { class: "chart", role: "img", "aria-label": `${title} over ${series.values.length} runs` });
  const older = series.left_out ? ` ${series.left_out} older runs are not drawn.` : "";
  const note = make("p", { class: "muted" }, `${series.values.length} runs.${older}`);
  const box = make("section", {}, make("h3", {}, `${title}, over runs`), place, note);
  return [box, place, () => drawTrend(place, series, runs)];
}

function fill(dialog, item, data, move) {
  const button = (label, name, action) => {
    const made = make("button", { type: "button", "aria-label": name, title: name }, label);
    made.addEventListener("click", action);
    return made;
  };
  const badge = make("span", { class: `badge ${item.status}` }, `${item.mark} ${item.word}`);
  const title = make("h2", { id: "evidence-title" }, item.title);
  const path = make("span", { class: "path" }, ` ${item.parts.join(" / ")}`);
  const header = make(
    "header",
    {},
    make("div", {}, badge, path, title),
    button("←", "Previous case", () => move(-1)),
    button("→", "Next case", () => move(1)),
    button("✕", "Close", () => dialog.close()),
  );
  const body = make("div", { class: "body" });
  if (item.reason) body.append(make("p", { class: "reason" }, item.reason));
  if (item.failures.length) {
    body.append(make("ul", {}, ...item.failures.map((line) => make("li", {}, line))));
  }
  for (const [name, text] of item.notes) {
    body.append(make("p", { class: "note" }, make("strong", {}, `${name}: `), text));
  }
  if (item.limits.length) body.append(makeLimits(item.limits));
  const found = data.trends.series.filter((series) => series.key === item.key);
  const charts = [
    ...item.charts.map(makeChart),
    ...found.map((series) => makeTrend(series, data.trends.runs)),
  ];
  for (const [box] of charts) body.append(box);
  for (const table of item.tables) body.append(makeTable(table.caption, table.head, table.rows));
  if (item.details) {
    body.append(make("section", {}, make("h3", {}, "Details"), make("pre", { tabindex: "0" }, item.details)));
  }
  if (item.facts.length) {
    const all = make("details", {}, make("summary", {}, `All ${item.facts.length} measurements`), makeFacts(item.facts));
    all.open = item.charts.length === 0;
    body.append(all);
  }
  body.append(make("section", {}, make("h3", {}, "Origin"), makeFacts(item.origin)));
  const focused = dialog.contains(document.activeElement) ? document.activeElement.title : "";
  dialog.replaceChildren(header, body);
  dialog.scrollTop = 0;
  [...header.querySelectorAll("button")].find((item) => item.title === focused)?.focus();
  return charts;
}
