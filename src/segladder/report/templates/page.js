"use strict";

const orderOf = (row, column) => {
  const cell = row.cells[column];
  return "order" in cell.dataset ? cell.dataset.order : cell.textContent;
};

const sortRows = (table, column, direction) => {
  const numeric = table.tHead.rows[0].cells[column].classList.contains("number");
  const sign = direction === "descending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    if (direction === "none") return a.dataset.place - b.dataset.place;
    const [first, second] = [orderOf(a, column), orderOf(b, column)];
    if (first === "" || second === "") return (first === "") - (second === ""); // unknown stands last either way
    return sign * (numeric ? first - second : first.localeCompare(second));
  });
  table.tBodies[0].append(...rows);
};

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    const turns = heading.classList.contains("number")
      ? { none: "descending", descending: "ascending", ascending: "none" }
      : { none: "ascending", ascending: "descending", descending: "none" };
    button.addEventListener("click", () => {
      const direction = turns[heading.getAttribute("aria-sort") ?? "none"];
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (direction !== "none") heading.setAttribute("aria-sort", direction);
      sortRows(table, heading.cellIndex, direction);
    });
  }
}

const form = document.getElementById("filter");
const filter = () => {
  const words = form.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const supervision = form.supervision.value;
  const items = document.querySelectorAll("table.board tbody tr, details.run");
  let shown = 0, rows = 0;
  for (const item of items) {
    const text = (item.matches("details") ? item.firstElementChild : item).textContent.toLowerCase();
    const fits = words.every(word => text.includes(word)) && ["", item.dataset.supervision].includes(supervision);
    item.hidden = !fits;
    if (item.matches("tr")) { rows += 1; shown += fits; }
  }
  form.querySelector("output").textContent = `${shown} of ${rows} rows`;
};
form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", event => event.preventDefault());
filter();

const openTarget = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target?.matches("details.run")) return;
  target.hidden = false;
  target.open = true;
  target.scrollIntoView();
  target.querySelector("summary").focus({ preventScroll: true });
};
addEventListener("hashchange", openTarget);
for (const link of document.querySelectorAll('a[href^="#run-"]')) {
  link.addEventListener("click", event => {
    event.preventDefault(); // the browser's own jump would take the focus away again
    history.pushState(null, "", link.hash);
    openTarget();
  });
}
openTarget();

for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
  });
}
