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
  const wanted = name => form.elements[name]?.value ?? "";
  const fits = (name, value) => ["", value].includes(wanted(name));
  let shown = 0, rows = 0;
  for (const section of document.querySelectorAll("main > section")) {
    section.hidden = !["data", "protocol"].every(name => fits(name, section.dataset[name]));
    const left = new Set();
    for (const row of section.querySelectorAll("table.board tbody tr")) {
      const text = row.textContent.toLowerCase();
      const told = ["labels", "supervision"].every(name => fits(name, row.dataset[name]));
      row.hidden = !(told && words.every(word => text.includes(word)));
      rows += 1;
      shown += !row.hidden && !section.hidden;
      if (!row.hidden) left.add(row.dataset.row);
    }
    for (const row of section.querySelectorAll("table.heat tbody tr[data-row]")) row.hidden = !left.has(row.dataset.row);
    for (const row of section.querySelectorAll("details.row")) row.hidden = !left.has(row.id);
  }
  form.querySelector("output").textContent = `${shown} of ${rows} rows`;
  cues();
};

const cue = wide => {
  const box = wide.firstElementChild;
  const [right, below] = [box.scrollWidth - box.clientWidth - box.scrollLeft, box.scrollHeight - box.clientHeight - box.scrollTop];
  wide.classList.toggle("left", box.scrollLeft > 2);
  wide.classList.toggle("right", right > 2);
  wide.classList.toggle("below", below > 2);
  wide.nextElementSibling.hidden = box.scrollWidth - box.clientWidth <= 2;
};
const cues = () => document.querySelectorAll(".wide").forEach(cue);
for (const wide of document.querySelectorAll(".wide")) {
  const more = document.createElement("p");
  more.className = "more-right";
  more.setAttribute("aria-hidden", "true");
  more.textContent = "more columns: scroll sideways \u2192";
  wide.after(more);
  wide.firstElementChild.addEventListener("scroll", () => cue(wide), { passive: true });
}
addEventListener("resize", cues);
document.addEventListener("toggle", cues, true);

form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", event => event.preventDefault());
filter();

const openTarget = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const row = target?.closest("details.row");
  if (!row) return;
  row.closest("main > section").hidden = false;
  row.hidden = false;
  row.open = true;
  target.scrollIntoView();
  row.querySelector("summary").focus({ preventScroll: true });
};
addEventListener("hashchange", openTarget);
for (const link of document.querySelectorAll('a[href^="#row-"]')) {
  link.addEventListener("click", event => {
    event.preventDefault(); // the browser's own jump would take the focus away again
    history.pushState(null, "", link.getAttribute("href"));
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
