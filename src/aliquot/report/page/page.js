"use strict";
document.documentElement.classList.add("js");

const valueOf = (cell) => (cell.textContent.trim() === "-" ? undefined : cell.dataset.value ?? cell.textContent.trim());

// Sorting: a button in every heading; numbers by value, missing values last whichever way.
function sortBy(table, heading) {
  const direction = heading.ariaSort === "ascending" ? "descending" : "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", direction);
  const number = heading.classList.contains("number");
  const sign = direction === "ascending" ? 1 : -1;
  const value = (row) => valueOf(row.cells[heading.cellIndex]);
  const order = (a, b) => (number ? a - b : a.localeCompare(b, "en", { numeric: true }));
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
    return sign * order(x, y);
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}

for (const table of document.querySelectorAll("table")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sortBy(table, heading));
    heading.append(button);
  }
}

// Filters: of long tables, one choice for each column that asks for it.
const FEW_ROWS = 12;

function addFilters(table) {
  const bar = document.createElement("div");
  const shown = document.createElement("output");
  const rows = [...table.tBodies[0].rows];
  const choices = [...table.tHead.querySelectorAll("[data-filter]")].flatMap((heading) => {
    const cells = rows.map((row) => row.cells[heading.cellIndex]);
    const texts = new Set(cells.map((cell) => cell.textContent.trim()));
    if (texts.size < 2) return [];
    const select = document.createElement("select");
    select.add(new Option("all", "*"));
    for (const text of texts) select.add(new Option(text));
    const label = document.createElement("label");
    label.append(`${heading.textContent} `, select);
    bar.append(label);
    return [{ select, column: heading.cellIndex }];
  });
  if (!choices.length) return;
  const apply = () => {
    for (const row of rows) {
      const kept = ({ select, column }) => select.value === "*" || select.value === row.cells[column].textContent.trim();
      row.hidden = !choices.every(kept);
    }
    shown.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  };
  bar.className = "filters";
  bar.append(shown);
  bar.addEventListener("change", apply);
  table.closest(".scroll").before(bar);
  apply();
}

for (const table of document.querySelectorAll("table")) if (table.tBodies[0].rows.length > FEW_ROWS) addFilters(table);

// Values on hover and focus. In a figure or table, Tab leads to one mark, and arrow keys to the others.
const tip = document.getElementById("tip");
let current = null;
let leaving = 0;

function showTip(element) {
  clearTimeout(leaving);
  current?.classList.remove("current");
  current = element;
  element.classList.add("current");
  tip.textContent = element.dataset.tip;
  tip.hidden = false;
  const at = element.getBoundingClientRect();
  const above = at.top - tip.offsetHeight - 6;
  tip.style.left = `${Math.max(4, Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${above > 4 ? above : at.bottom + 6}px`;
}

function hideTip() {
  current?.classList.remove("current");
  current = null;
  tip.hidden = true;
}

for (const title of document.querySelectorAll(".drawing svg * > title")) {
  title.parentElement.dataset.tip = title.textContent;
  title.remove();
}
document.addEventListener("pointerover", (event) => {
  const element = event.target.closest("[data-tip]");
  if (element) showTip(element);
});
document.addEventListener("pointerout", (event) => {
  if (event.pointerType !== "touch" && event.target.closest("[data-tip]")) leaving = setTimeout(hideTip, 200);
});
document.addEventListener("pointerdown", (event) => event.target.closest("[data-tip]") || hideTip());
tip.addEventListener("pointerenter", () => clearTimeout(leaving));
tip.addEventListener("pointerleave", hideTip);
document.addEventListener("scroll", () => document.activeElement !== current && hideTip(), true);
document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());

const STEPS = { ArrowRight: 1, ArrowLeft: -1 };

for (const drawing of document.querySelectorAll(".drawing")) {
  const marks = [...drawing.querySelectorAll("[data-tip]")];
  if (!marks.length) continue;
  drawing.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    const at = marks.indexOf(current);
    showTip(marks[(at < 0 && STEPS[event.key] < 0 ? 0 : at + STEPS[event.key] + marks.length) % marks.length]);
  });
  drawing.addEventListener("blur", hideTip);
}

for (const body of document.querySelectorAll("tbody")) {
  const cells = body.querySelectorAll("[data-tip]");
  for (const cell of cells) cell.tabIndex = -1;
  if (cells.length) cells[0].tabIndex = 0;
  body.addEventListener("focusin", ({ target }) => {
    if (!target.dataset.tip) return;
    for (const cell of body.querySelectorAll("[tabindex='0']")) cell.tabIndex = -1;
    target.tabIndex = 0;
    showTip(target);
  });
  body.addEventListener("focusout", hideTip);
  body.addEventListener("keydown", (event) => {
    const next = event.target.dataset.tip && neighbor(event.target, event.key);
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}

// The next cell with a value in the direction of an arrow key.
function neighbor(cell, key) {
  if (key in STEPS) {
    const cells = [...cell.parentElement.querySelectorAll("[data-tip]")];
    return cells[cells.indexOf(cell) + STEPS[key]];
  }
  const side = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[key];
  let row = side && cell.parentElement[side];
  while (row && (row.hidden || !row.cells[cell.cellIndex].dataset.tip)) row = row[side];
  return row?.cells[cell.cellIndex];
}

// Commands can be copied; where the browser refuses, they are selected.
for (const command of document.querySelectorAll(".command")) {
  const code = command.querySelector("code");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
    }
  });
  command.append(button);
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => (details.open = true)));
