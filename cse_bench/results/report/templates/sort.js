"use strict";
// Headers become buttons that sort; without this script the tables are read as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  headers.forEach((header, column) => {
    const label = header.querySelector(".label");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...label.childNodes);
    label.replaceWith(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const numeric = header.dataset.kind === "number";
      const first = numeric ? "descending" : "ascending";
      const second = numeric ? "ascending" : "descending";
      const order = header.getAttribute("aria-sort") === first ? second : first;
      headers.forEach((other) => other.setAttribute("aria-sort", other === header ? order : "none"));
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...body.rows].sort((one, other) => {
        const a = value(one), b = value(other);
        if (a === "" || b === "") return (a === "") - (b === "");  // what has no value stays last
        return sign * (numeric ? Number(a) - Number(b) : a.localeCompare(b));
      });
      body.append(...rows);
    });
  });
}
