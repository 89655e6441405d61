// A field on every page that finds a language by any of its names or codes, in the pattern of an
// editable combobox with a list. The names are in languages.js, which is written with the pages.
const MOST_SHOWN = 8;

// Capitals and the marks above and below Latin letters make no difference.
const folded = (text) =>
  text.normalize("NFD").replace(/[\u0300-\u036f]/g, "").normalize("NFC").toLowerCase().trim();

// The languages that a text may mean: first one of that name or code, then those whose names begin
// so, then those with such a code or other name, then those with it within their names.
const languagesLike = (text) => {
  const wanted = folded(text);
  const rank = ([name, own, code, others]) => {
    const names = [name, own, ...others].map(folded);
    if (code === wanted || names.includes(wanted)) return 0;
    if (names.slice(0, 2).some((each) => each.startsWith(wanted))) return 1;
    if (names.some((each) => each.startsWith(wanted))) return 2;
    return names.slice(0, 2).some((each) => each.includes(wanted)) ? 3 : 4;
  };
  const ranked = LANGUAGES.map((language) => [rank(language), language]);
  const found = ranked.filter(([place]) => place < 4).sort((a, b) => a[0] - b[0]);
  return found.slice(0, MOST_SHOWN).map(([, language]) => language);
};

document.addEventListener("DOMContentLoaded", () => {
  const header = document.querySelector(".header-article-items__start");
  if (!header || typeof LANGUAGES === "undefined") return;
  const finder = document.createElement("div");
  finder.className = "finder";
  finder.innerHTML = `
    <input type="text" role="combobox" aria-label="Find a language" placeholder="Find a language"
      title="Find a language by name or code (Alt+L)" aria-keyshortcuts="Alt+L"
      aria-autocomplete="list" aria-expanded="false" aria-controls="finder-list"
      autocomplete="off" autocapitalize="off" spellcheck="false">
    <ul id="finder-list" role="listbox" aria-label="Languages" hidden></ul>
    <span role="status" class="visually-hidden"></span>`;
  header.append(finder);
  const [field, list, status] = finder.children;
  const root = document.documentElement.dataset.content_root;
  let chosen = 0;

  const choose = (place) => {
    chosen = place;
    for (const [n, option] of Array.from(list.children).entries())
      option.setAttribute("aria-selected", n === chosen);
    field.setAttribute("aria-activedescendant", list.children[chosen]?.id ?? "");
    list.children[chosen]?.scrollIntoView({ block: "nearest" });
  };
  const show = (open) => {
    list.hidden = !open;
    field.setAttribute("aria-expanded", open);
    if (!open) field.removeAttribute("aria-activedescendant");
  };
  const update = () => {
    const found = field.value.trim() ? languagesLike(field.value) : [];
    const options = found.map(([name, own, code]) => {
      const option = document.createElement("li");
      option.id = `finder-${code}`;
      option.setAttribute("role", "option");
      const names = [name, own, code].map((text, n) => {
        const part = document.createElement(["strong", "bdi", "code"][n]);
        part.textContent = text === name && n === 1 ? "" : text;
        return part;
      });
      option.append(...names);
      option.dataset.page = `${root}languages/${code}.html`;
      return option;
    });
    list.replaceChildren(...options);
    show(options.length > 0);
    choose(0);
    const none = field.value.trim() ? "No such language" : "";
    status.textContent = found.length ? `${found.length} found` : none;
    field.setAttribute("aria-invalid", none !== "" && !found.length);
  };

  field.addEventListener("input", update);
  field.addEventListener("focus", update);
  field.addEventListener("blur", () => show(false));
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const length = list.children.length;
    if (step && length) {
      if (list.hidden) show(true);
      choose((chosen + step + length) % length);
    } else if (event.key === "Enter" && !list.hidden) {
      window.location.assign(list.children[chosen].dataset.page);
    } else if (event.key === "Escape") {
      if (list.hidden) field.value = "";
      show(false);
    } else return;
    event.preventDefault();
  });
  // The list must not take the focus from the field, which would close it before the click.
  list.addEventListener("pointerdown", (event) => event.preventDefault());
  list.addEventListener("mousedown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) window.location.assign(option.dataset.page);
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey && !event.ctrlKey && !event.metaKey && event.code === "KeyL") {
      event.preventDefault();
      field.focus();
      field.select();
    }
  });
});
