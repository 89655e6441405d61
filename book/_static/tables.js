// A field that filters the rows of each table of class "sortable", and headings that sort it. The
// tables are whole without this script; it needs nothing else, so pages work from the disk. Each table
// can be saved as CSV.
const number = (text) => (/^[−\d.,]+$/.test(text) ? +text.replaceAll(",", "").replace("−", "-") : NaN);
const plain = (text) => text.toLowerCase().replace(/\s+/g, " ").trim();

document.addEventListener("DOMContentLoaded", () => {
  for (const { tHead, tBodies } of document.querySelectorAll("table.cards")) {
    const headings = Array.from(tHead.rows[0].cells, (cell) => cell.textContent);
    for (const { cells } of tBodies[0].rows) {
      for (const [column, cell] of Array.from(cells).entries()) cell.dataset.heading = headings[column];
    }
  }

  for (const table of document.querySelectorAll("table.facts:not(.provenance)")) {
    const link = document.createElement("a");
    const title = table.caption.textContent;
    const cells = (row) => Array.from(row.cells, ({ textContent }) => textContent.trim())
      .map((text) => (text === "–" ? "" : text.replace(/^−/, "-").replaceAll('"', '""')))
      .map((text) => (/^-?[\d,.]+$/.test(text) ? text.replaceAll(",", "") : `"${text}"`));
    Object.assign(link, { className: "csv", download: `${title}.csv`, href: "#", textContent: "CSV" });
    link.setAttribute("aria-label", `CSV of: ${title}`);
    link.addEventListener("click", () => {
      const lines = Array.from(table.rows, (row) => cells(row).join(","));
      link.href = URL.createObjectURL(new Blob([lines.join("\n")], { type: "text/csv" }));
    });
    table.caption.append(" ", link);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    const shown = document.createElement("output");
    const count = () => {
      const left = rows.filter((row) => !row.hidden).length;
      shown.textContent = ` ${left} of ${rows.length} rows`;
    };

    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "filter rows";
    field.setAttribute("aria-label", "filter the rows of the table below");
    field.addEventListener("input", () => {
      const phrase = plain(field.value);
      for (const row of rows) row.hidden = !plain(row.textContent).includes(phrase);
      count();
    });
    const bar = document.createElement("p");
    bar.className = "filter";
    bar.append(field, shown);
    table.parentElement.before(bar);
    count();

    for (const [column, heading] of Array.from(table.tHead.rows[0].cells).entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const text = (row) => row.cells[column].textContent.trim();
        const compare = (a, b) =>
          (text(a) === "–") - (text(b) === "–") ||
          number(text(a)) - number(text(b)) ||
          text(a).localeCompare(text(b), "en", { numeric: true, sensitivity: "base" });
        body.append(...rows.sort((a, b) => (down ? compare(b, a) : compare(a, b))));
      });
    }
  }
});

// Verdicts in running text, which the pages paste, look like chips: by colour and by a mark.
const CHIPS = {
  holds: "yes",
  "holds in part": "part",
  "does not hold": "no",
  undecided: "open",
  "seen in the toy": "yes",
  "not seen in the toy": "no",
  "undecided in the toy": "open",
  "not testable here": "open",
  "not comparable, by construction": "open",
};

document.addEventListener("DOMContentLoaded", () => {
  for (const span of document.querySelectorAll(".bd-article .pasted-text")) {
    const kind = CHIPS[plain(span.textContent)];
    if (kind) span.classList.add("verdict", `verdict-${kind}`);
  }
});
