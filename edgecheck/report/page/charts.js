// Charts, drawn by Vega-Lite once they are looked at. The library is packed into the page.
async function unpack(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

let unpackedData;
function loadData() {
  unpackedData ??= unpack("data").then(JSON.parse);
  return unpackedData;
}

// Cases are packed a hundred at a time: to show one, not all need unpacking.
const unpackedCases = new Map();
function loadCases(pack) {
  if (!unpackedCases.has(pack)) unpackedCases.set(pack, unpack(`cases-${pack}`).then(JSON.parse));
  return unpackedCases.get(pack);
}

let unpackedLibrary;
function loadLibrary() {
  unpackedLibrary ??= unpack("library").then((text) => {
    const script = document.createElement("script");
    script.textContent = text; // allowed by its hash in the page's policy
    document.head.append(script);
  });
  return unpackedLibrary;
}

// The interpreter of expressions (ast) needs no eval, which the policy forbids.
const OPTIONS = {
  ast: true,
  actions: false,
  renderer: "svg",
  defaultStyle: false,
  tooltip: showTip,
};

// In the dialog where there is one, which covers the rest of the page.
const tip = make("div", { id: "tip", role: "tooltip" });
function showTip(handler, event, item, value) {
  tip.remove();
  if (value === null || value === undefined || value === "") return;
  const pairs = typeof value === "object" ? Object.entries(value) : [["", value]];
  tip.replaceChildren(makeFacts(pairs.map(([name, text]) => [name, String(text)])));
  (event.target.closest("dialog") ?? document.body).append(tip);
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

async function draw(place, kind, datasets, change) {
  const data = await loadData();
  await loadLibrary();
  const spec = structuredClone(data.specs[kind]);
  spec.datasets = datasets;
  change?.(spec);
  // A layer without data has no scale, of which Vega would warn.
  spec.layer = spec.layer?.filter((layer) => datasets[layer.data.name].length) ?? undefined;
  if (!spec.layer) delete spec.layer;
  await vegaEmbed(place, spec, OPTIONS);
  place.dataset.drawn = kind;
}

// Calls draw for a place once it comes near the part of the page that is seen.
const waiting = new Map();
const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting) drawNow(entry.target);
  },
  { rootMargin: "300px" },
);

function drawNow(place) {
  const start = waiting.get(place);
  waiting.delete(place);
  observer.unobserve(place);
  return start?.();
}

function drawWhenSeen(place, start) {
  waiting.set(place, start);
  observer.observe(place);
}

function drawFront(place, front) {
  return draw(place, "front", { values: front.values }, (spec) => {
    for (const layer of spec.layer) layer.encoding.y.title = front.metric;
  });
}

function drawTrend(place, series, runs) {
  const values = series.values.map((value, position) => {
    const [id, started, commit] = runs[series.runs[position]];
    return {
      run: position,
      value,
      low: series.low[position] ?? value,
      high: series.high[position] ?? value,
      told: `${value} ${series.unit}`,
      id,
      started: started.slice(0, 16).replace("T", " "),
      commit: commit || "not known",
    };
  });
  const edges = [0, ...series.shifts, values.length];
  const levels = series.levels.map((level, position) => ({
    level,
    start: edges[position],
    end: edges[position + 1] - 1,
  }));
  const shifts = series.shifts.map((position) => ({
    run: position - 0.5,
    told: `between ${values[position - 1].commit} and ${values[position].commit}`,
  }));
  return draw(place, "trend", { values, levels, shifts }, (spec) => {
    for (const layer of spec.layer) if (layer.encoding.y) layer.encoding.y.title = series.unit;
  });
}
