// Full text search of the pages, in any script. Their text is in search_texts.js, which only the
// page of the search loads; so it works from the disk, where a page cannot fetch others.
const MOST_RESULTS = 50;
const AROUND = 90; // characters of a snippet before and after what was found

// Capitals and marks on Latin letters make no difference. Each character stays one character, so
// that places in the folded text are places in the text.
const foldedInPlace = (text) =>
  text.replace(/[\u00c0-\u024f\u1e00-\u1eff]/g, (c) => c.normalize("NFD")[0]).toLowerCase();

// Words of alphabets match from their beginning, with or without a plural's s. Scripts that put no
// spaces between words match anywhere.
const patternOf = (term) => {
  const literal = term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const alphabet = /^[\p{Script=Latin}\p{Script=Cyrillic}\p{Script=Greek}]/u.test(term);
  const stem = alphabet && term.length > 4 ? literal.replace(/s$/, "s?") : literal;
  return new RegExp((alphabet ? "(?<![\\p{L}\\p{N}])" : "") + stem, "gu");
};

// The sections that have every term in their text or in a heading above it, best first.
const sectionsWith = (patterns) => {
  const found = [];
  for (const [page, title, sections] of SEARCH_TEXTS) {
    for (const [anchor, heading, text] of sections) {
      const above = foldedInPlace(`${title} ${heading}`);
      const below = foldedInPlace(text);
      let score = 0;
      const all = patterns.every((pattern) => {
        const named = above.match(pattern)?.length ?? 0;
        const told = below.match(pattern)?.length ?? 0;
        score += 20 * Math.min(named, 1) + Math.min(told, 5);
        return named + told > 0;
      });
      if (all) found.push({ page, title, anchor, heading, text, below, score });
    }
  }
  return found.sort((a, b) => b.score - a.score);
};

// A piece of text around the first term in it, with every term marked.
const snippet = ({ text, below }, patterns) => {
  const places = patterns.map((pattern) => below.search(pattern)).filter((place) => place >= 0);
  const place = places.length ? Math.min(...places) : 0;
  // A snippet begins and ends between words, in scripts that have spaces between them.
  const space = place > AROUND ? text.indexOf(" ", place - AROUND) : -1;
  const start = place <= AROUND ? 0 : space >= 0 && space < place ? space + 1 : place - AROUND;
  const last = text.lastIndexOf(" ", place + 2 * AROUND);
  const short = text.length <= place + 2 * AROUND;
  const end = short ? text.length : last > place + AROUND ? last : place + 2 * AROUND;
  const marks = patterns
    .flatMap((p) => Array.from(below.slice(start, end).matchAll(p)))
    .map((match) => [start + match.index, start + match.index + match[0].length])
    .sort((a, b) => a[0] - b[0]);
  const line = document.createElement("p");
  let at = start;
  if (start) line.append("… ");
  for (const [from, to] of marks) {
    if (from < at) continue;
    const mark = document.createElement("mark");
    mark.textContent = text.slice(from, to);
    line.append(text.slice(at, from), mark);
    at = to;
  }
  line.append(text.slice(at, end), end < text.length ? " …" : "");
  return line;
};

document.addEventListener("DOMContentLoaded", () => {
  const results = document.getElementById("search-results");
  if (!results || typeof SEARCH_TEXTS === "undefined") return;
  const query = new URLSearchParams(window.location.search).get("q")?.trim() ?? "";
  for (const field of document.querySelectorAll("form.bd-search input[name=q]")) field.value = query;
  const terms = foldedInPlace(query.normalize("NFC")).split(/\s+/).filter(Boolean);
  if (!terms.length) return;
  const patterns = terms.map(patternOf);
  const found = sectionsWith(patterns);
  const summary = document.createElement("p");
  summary.setAttribute("role", "status");
  const shown = found.length > MOST_RESULTS ? `, the best ${MOST_RESULTS} of which are shown` : "";
  summary.textContent = found.length
    ? `${found.length} ${found.length === 1 ? "section has" : "sections have"} “${query}”${shown}.`
    : `No page has “${query}”. All words must be in one section.`;
  const list = document.createElement("ol");
  list.className = "found";
  for (const each of found.slice(0, MOST_RESULTS)) {
    const link = document.createElement("a");
    link.href = `${each.page}${each.anchor && `#${each.anchor}`}`;
    link.textContent = each.heading === each.title ? each.title : `${each.title}: ${each.heading}`;
    const item = document.createElement("li");
    item.append(link, snippet(each, patterns));
    list.append(item);
  }
  results.replaceChildren(summary, list);
});
