"use strict";
// Charts: each is JSON beside its place; its text and lines have the page's colours.
const paper = matchMedia("print");

function draw(figure) {
  const place = figure.querySelector(".plot");
  const { data, layout, config } = JSON.parse(figure.querySelector("script").textContent);
  if (paper.matches && layout.height > 900) { // higher than a sheet: it would be cut
    Plotly.purge(place);
    figure.style.breakInside = place.style.height = "auto";
    place.innerHTML = figure.querySelector("noscript").textContent;
    return;
  }
  place.style.height = `${layout.height}px`; // else a resized chart shrinks to its place
  layout.dragmode = false; // a finger on a chart scrolls the page
  layout.showlegend = false; // the page has its own
  for (const axis of Object.keys(layout).filter((name) => place.clientWidth < 500 && name.startsWith("xaxis")))
    if (layout[axis].type === "date") layout[axis].nticks = 3; // a phone has no room for more
  Plotly.newPlot(place, data, layout, config);
}

function drawAll() {
  document.querySelectorAll("figure.chart").forEach(draw);
}
drawAll();
paper.addEventListener("change", drawAll);

// Tables: a click on a heading sorts, a word in the box above a longer one filters.
function key(cell) {
  if (!cell) return null;
  const raw = cell.dataset.v;
  if (raw !== undefined) return raw === "" ? null : Number(raw);
  const text = cell.textContent.trim();
  if (text === "" || text === "-") return null;
  const number = Number(text.replace(/,/g, ""));
  return Number.isNaN(number) ? text : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}

function sort(table, column, header) {
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map((row) => [key(row.cells[column]), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // nothing comes last
    return up ? compare(a, b) : compare(b, a);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function addSearch(table) {
  const rows = [...table.tBodies[0].rows];
  const all = (table.closest(".scroll") || table).dataset.of; // of which the page has the first
  const first = all && `in the first ${[rows.length, Number(all)].map((n) => n.toLocaleString("en")).join(" of ")}`;
  const box = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const shown = document.createElement("output");
  box.className = "search";
  input.type = "search";
  label.append("Search ", input);
  box.append(label, shown);
  const count = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const left = rows.filter((row) => !row.hidden).length;
    if (first) shown.value = left === rows.length ? first : `${left} found ${first}`;
    else shown.value = left === rows.length ? `${rows.length} rows` : `${left} of ${rows.length} rows`;
  };
  input.addEventListener("input", count);
  count();
  (table.closest(".scroll") || table).before(box);
}

for (const table of document.querySelectorAll("main table")) {
  if (!table.tHead || !table.tBodies.length || table.tBodies[0].rows.length < 2) continue;
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    if (!header.textContent) return header.replaceWith(document.createElement("td")); // of an index
    const button = document.createElement("span"); // Chromium repeats no <button> on the next sheet
    button.role = "button";
    button.tabIndex = 0;
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, column, header));
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(table, column, header);
    });
  });
  if (table.tBodies[0].rows.length > 8) addSearch(table);
}
for (const scroll of document.querySelectorAll(".scroll")) {
  if (scroll.scrollWidth > scroll.clientWidth) scroll.tabIndex = 0; // the keyboard can scroll it
}
