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
      const form = document.querySelector("form.calculator");
      if (form && place.id === "calculator-map") calculate(form, result.view);
    }
  };

  // The calculator: puts the scores of its field into the chart, which computes Equation 1, and says
  // in words what comes of it.
  const read = (text) => {
    const rows = text.trim().split(/\n+/).map((line) => line.trim().split(/[\s,;|]+/));
    if (rows[0].length === 3 && rows[0].slice(1).every((cell) => /^[a-z]/i.test(cell))) rows.shift();
    for (const row of rows) {
      const good = (cell) => /^\d+(\.\d*)?$/.test(cell) && cell <= 100;
      if (row.length !== 3 || !row.slice(1).every(good)) {
        throw `“${row.join(" ")}” is not a language and two scores from 0 to 100, such as “cy 2.5 4.0”.`;
      }
    }
    if (rows.length < 2) throw "Give the language that was tuned on, and below it at least one other.";
    const mean = (place) => rows.slice(1).reduce((sum, row) => sum + +row[place], 0) / (rows.length - 1);
    return [rows[0][0], +rows[0][1], +rows[0][2], mean(1), mean(2)];
  };

  const calculate = (form, view) => {
    const names = ["bilingual_pre", "bilingual_post", "multilingual_pre", "multilingual_post"];
    const output = form.querySelector("output");
    const advice = JSON.parse(form.dataset.advice);
    const show = async () => {
      output.classList.remove("wrong");
      try {
        const [code, ...scores] = read(form.querySelector("textarea").value);
        names.forEach((name, place) => view.signal(name, scores[place]));
        await view.runAsync();
        const known = typeof LANGUAGES === "undefined" ? [] : LANGUAGES;
        const [name] = known.find((language) => language[2] === code) ?? [code];
        const link = document.createElement("a");
        link.href = name === code ? "#how-sure" : `../languages/${code}.html`;
        link.textContent = name === code ? "How sure such advice is" : `What is known of ${name}`;
        const kind = view.signal("quadrant");
        const [own, others, T, factor] = ["own", "others", "T", "factor"].map((signal) =>
          `${+view.signal(signal).toFixed(3)}`.replace("-", "−"),
        );
        output.replaceChildren(
          `Equation 1 with T = ${T} and factor ${factor}: own change ${own}, others’ change ${others}. ` +
            `${name} is ${kind}, and the paper recommends ${advice[kind]} for such a language. `,
          link,
        );
      } catch (error) {
        output.classList.add("wrong");
        output.textContent = error;
      }
    };
    form.oninput = show;
    view.addSignalListener("T", show);
    view.addSignalListener("factor", show);
    return show();
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
