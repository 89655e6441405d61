// What the theme leaves without a name: the buttons that unfold the pages below a page. And a list of
// references is called a list although its entries have a role of their own.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("nav.bd-links summary")) {
    const page = summary.closest("li").querySelector("a").textContent.trim();
    summary.setAttribute("aria-label", `Pages below ${page}`);
  }
  for (const list of document.querySelectorAll(".citation-list")) list.removeAttribute("role");
});
