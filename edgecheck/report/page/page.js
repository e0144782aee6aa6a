// Filters and order of the matrix, the dialog with a case's evidence, trends, light and dark.
const byId = (id) => document.getElementById(id);
const grid = byId("grid");
const rows = [...grid.tBodies[0].rows];
const form = document.querySelector(".filters");

// -- the matrix

function readFilters() {
  const values = new FormData(form);
  return {
    words: values.get("find").toLowerCase().split(/\s+/).filter(Boolean),
    model: values.get("model"),
    target: values.get("target"),
    precision: values.get("precision"),
    check: values.get("check"),
    statuses: values.getAll("status"),
  };
}

const found = new Map();
function wordsOf(row) {
  if (!found.has(row)) {
    const tips = [...row.querySelectorAll(".cell")].map((cell) => cell.title);
    found.set(row, `${row.textContent}\n${tips.join("\n")}`.toLowerCase());
  }
  return found.get(row);
}

function statusOf(cell) {
  return cell.classList[1];
}

function showMatrix() {
  const wanted = readFilters();
  let candidates = 0;
  let cases = 0;
  for (const element of grid.querySelectorAll("[data-check]")) {
    element.hidden = wanted.check !== "" && element.dataset.check !== wanted.check;
  }
  for (const row of rows) {
    const cells = [...row.querySelectorAll("td:not([hidden]) .cell")];
    const fits = (cell) => !wanted.statuses.length || wanted.statuses.includes(statusOf(cell));
    const fitting = cells.filter(fits);
    const shown =
      fitting.length > 0 &&
      ["model", "target", "precision"].every((name) => !wanted[name] || row.dataset[name] === wanted[name]) &&
      wanted.words.every((word) => wordsOf(row).includes(word));
    row.hidden = !shown;
    for (const cell of cells) cell.classList.toggle("dim", shown && !fits(cell));
    candidates += shown;
    cases += shown ? fitting.length : 0;
  }
  byId("shown").textContent = `${candidates} of ${rows.length} candidates, ${cases} cases`;
}

function sortValue(row, heading) {
  const { check } = heading.dataset;
  if (check !== undefined) {
    const cell = row.cells[heading.cellIndex].querySelector(".cell");
    return cell?.dataset.value === undefined ? null : Number(cell.dataset.value);
  }
  if (heading.cellIndex === 2) return Number(row.dataset.order);
  return row.cells[heading.cellIndex].textContent.toLowerCase();
}

function sortMatrix(heading) {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of grid.tHead.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const keyed = rows.map((row) => [sortValue(row, heading), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what has no number comes last
    return (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1);
  });
  grid.tBodies[0].append(...keyed.map(([, row]) => row));
}

// -- evidence: the address names the case, so that it can be linked to

const dialog = byId("evidence");
let opened = null;

function keyInAddress() {
  if (!location.hash.startsWith("#case=")) return null;
  try {
    return decodeURIComponent(location.hash.slice("#case=".length));
  } catch {
    return null;
  }
}

function addressOf(key) {
  return `#case=${encodeURIComponent(key)}`;
}

function shownCells() {
  return [...grid.querySelectorAll("tbody tr:not([hidden]) td:not([hidden]) .cell:not(.dim)")];
}

function cellOf(key) {
  return [...grid.querySelectorAll(".cell")].find((cell) => keyOf(cell) === key);
}

function keyOf(cell) {
  return decodeURIComponent(cell.hash.slice("#case=".length));
}

function move(step) {
  const cells = shownCells();
  if (!cells.length) return;
  const position = cells.findIndex((cell) => keyOf(cell) === opened);
  const next = cells[(position + step + cells.length) % cells.length];
  history.replaceState(null, "", addressOf(keyOf(next)));
  showEvidence();
}

async function showEvidence() {
  const key = keyInAddress();
  if (key === null) {
    if (dialog.open) dialog.close();
    return;
  }
  const cell = cellOf(key);
  if (!cell) return;
  const [data, cases] = await Promise.all([loadData(), loadCases(cell.dataset.pack)]);
  if (keyInAddress() !== key) return;
  opened = key;
  const charts = fill(dialog, cases[key], data, move);
  if (!dialog.open) dialog.showModal();
  for (const [, place, start] of charts) drawWhenSeen(place, start);
}

function leaveEvidence() {
  const cell = cellOf(opened);
  opened = null;
  if (keyInAddress() !== null) history.replaceState(null, "", location.pathname + location.search);
  cell?.focus({ preventScroll: false });
}

// -- trends

const AT_ONCE = 24;

function showTrends(data, count = AT_ONCE) {
  const metric = byId("trend-metric").value;
  const series = data.trends.series.filter((item) => item.metric === metric);
  const cards = series.slice(0, count).map((item) => {
    const place = make("div", { class: "chart", role: "img", "aria-label": `${item.metric} of ${item.key}` });
    const link = make("a", { href: addressOf(item.key) }, item.key);
    drawWhenSeen(place, () => drawTrend(place, item, data.trends.runs));
    return make("article", { class: "card" }, make("h3", {}, link), place);
  });
  byId("multiples").replaceChildren(...cards);
  const shifted = series.filter((item) => item.shifts.length).length;
  byId("trend-count").textContent = `${cards.length} of ${series.length} series shown, ${shifted} with a shift`;
  const more = byId("more-trends");
  more.hidden = cards.length === series.length;
  more.onclick = () => showTrends(data, count + AT_ONCE);
}

async function startTrends() {
  const data = await loadData();
  const metrics = [...new Set(data.trends.series.map((item) => item.metric))];
  const choice = byId("trend-metric");
  choice.replaceChildren(...metrics.map((name) => make("option", {}, name)));
  if (metrics.includes("latency p50")) choice.value = "latency p50";
  choice.addEventListener("change", () => showTrends(data));
  showTrends(data);
}

// -- start

function toggleTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const root = document.documentElement;
  root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
  byId("theme").setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
}

document.documentElement.classList.add("scripted");
form.addEventListener("input", showMatrix);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(showMatrix));
for (const button of grid.querySelectorAll(".sort")) {
  button.addEventListener("click", () => sortMatrix(button.closest("th")));
}
byId("theme").addEventListener("click", toggleTheme);
dialog.addEventListener("close", leaveEvidence);
dialog.addEventListener("click", (event) => {
  if (event.target === dialog && event.offsetX < 0) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  if (event.target.closest("pre, input, select")) return;
  if (event.key === "ArrowLeft") move(-1);
  if (event.key === "ArrowRight") move(1);
});
addEventListener("hashchange", showEvidence);
for (const place of document.querySelectorAll("[data-front]")) {
  drawWhenSeen(place, async () => drawFront(place, (await loadData()).fronts[place.dataset.front]));
}
if (byId("multiples")) drawWhenSeen(byId("multiples"), startTrends);
if (keyInAddress() !== null) showEvidence();
// What is printed should have its charts, though nobody scrolled to them.
const whenIdle = window.requestIdleCallback ?? ((work) => setTimeout(work, 500));
function drawInTurn() {
  const next = waiting.keys().next().value;
  if (next) whenIdle(async () => (await drawNow(next), drawInTurn()));
}
whenIdle(drawInTurn);
