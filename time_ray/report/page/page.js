"use strict";
// The table of all cells: sorted by its columns, filtered, and given as CSV. Without a script it is there all the same.
(() => {
  const table = document.getElementById("scores");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const names = heads.map((head) => head.textContent);
  const rows = () => [...body.rows];
  const shown = () => rows().filter((row) => !row.hidden);
  const compare = new Intl.Collator("en", { numeric: true }).compare;

  function sortBy(column, down) {
    const numeric = heads[column].classList.contains("n");
    const key = (row) => (numeric ? row.cells[column].dataset.n : row.cells[column].textContent);
    const lacks = (row) => numeric && key(row) === undefined; // always last
    const order = (a, b) =>
      lacks(a) - lacks(b) || (down ? -1 : 1) * (numeric ? key(a) - key(b) || 0 : compare(key(a), key(b)));
    body.append(...rows().sort(order));
    heads.forEach((head, at) => head.setAttribute("aria-sort", at !== column ? "none" : down ? "descending" : "ascending"));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.dataset.name = names[column]; // browsers print no buttons on later pages
    const firstDown = head.classList.contains("n") && column > 0; // scores: the highest first
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      sortBy(column, now === "none" ? firstDown : now === "ascending");
    });
  });

  const count = document.getElementById("count");
  const tell = () => (count.textContent = `${shown().length} of ${rows().length} rows`);
  document.getElementById("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    for (const row of rows()) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    tell();
  });

  const value = (cell) => cell.dataset.n ?? cell.textContent.replace(/^(?=[=@])/, "'"); // no formula in a spreadsheet
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  document.getElementById("download").addEventListener("click", (event) => {
    const lines = [names, ...shown().map((row) => [...row.cells].map(value))];
    const text = lines.map((line) => line.map(quoted).join(",") + "\r\n").join("");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
    link.download = event.target.dataset.name;
    link.click();
    URL.revokeObjectURL(link.href);
  });

  document.querySelector(".tools").hidden = false;
  tell();
})();
