// Draws the charts of a page, in the colours of the theme, and again when the theme changes. The
// libraries come from vega.js, so pages work from the disk.
(() => {
  const draw = async () => {
    const dark = document.documentElement.dataset.theme === "dark";
    for (const source of document.querySelectorAll("script[data-figure]")) {
      const place = document.getElementById(source.dataset.figure);
      const old = place.view;
      const kept = old ? Object.entries(old.getState().signals) : [];
      const result = await vegaEmbed(place, JSON.parse(source.textContent), {
        actions: { export: true, source: false, compiled: false, editor: false },
        config: {
          axis: { grid: false },
          background: "transparent",
          font: "inherit",
          rule: { color: dark ? "#bbb" : "#555" },
          text: { color: dark ? "#ddd" : "#222" },
        },
        renderer: "svg",
        theme: dark ? "dark" : undefined,
        tooltip: { theme: dark ? "dark" : "light" },
      });
      place.view = result.view;
      place.querySelector("summary")?.setAttribute("aria-label", "Save the figure");
      for (const [name, value] of kept) {
        if (place.querySelector(`[name="${name}"]`)) result.view.signal(name, value);
      }
      await result.view.runAsync();
    }
  };
  if (window.figuresDrawn) return;
  window.figuresDrawn = true;
  document.addEventListener("DOMContentLoaded", () => {
    draw();
    new MutationObserver(draw).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
  });
})();
