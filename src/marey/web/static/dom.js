// Elements by id, elements from text, times and percentages. Text is always set as text, never as HTML.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function show(element, visible = true) { element.hidden = !visible; }

export function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}

// Of a probability, which is never 0 or 1.
export const percent = (share) => share < 0.005 ? "< 1 %" : `${Math.min(99, Math.round(100 * share))} %`;

// Of a count, which may be none or all.
export const part = (share) => `${Math.round(100 * share)} %`;

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export function bars(list, rows, show_value = percent) {
  list.replaceChildren(...rows.map(([name, share]) => {
    const fill = make("div", { class: "fill" });
    fill.style.width = `${Math.max(0.5, 100 * Math.min(1, share))}%`;
    return make("li", {}, make("span", { class: "name", text: name }), make("span", { class: "value", text: show_value(share) }),
      make("div", { class: "track", "aria-hidden": "true" }, fill));
  }));
}
