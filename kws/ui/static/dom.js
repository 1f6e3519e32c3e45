// Elements without markup in strings: text from models and files is never parsed as HTML.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list" && name !== "form") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((one) => one !== null && one !== undefined));
  return made;
}

// Replaces what an element holds; what is null is left out.
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((one) => one !== null && one !== undefined));
}

export function chip(text, kind = "") {
  return el("span", { className: `chip ${kind}` }, text);
}

export function empty(title, ...rest) {
  return el("div", { className: "empty" }, el("strong", {}, title), ...rest);
}

export function notice(text, kind = "") {
  const shown = el("p", { className: kind }, text);
  document.getElementById("notices").append(shown);
  setTimeout(() => shown.remove(), kind === "bad" ? 12000 : 5000);
}

export function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour12: false });
}

// A source without a name of its own is called by its path: its last part will do.
export function shortName(name) {
  return name.split("/").filter(Boolean).at(-1) ?? name;
}

export function number(value, digits = 2) {
  return value.toFixed(digits);
}

// One notice for a failed action, in place of an error that nobody sees.
export function attempt(action) {
  return async (...given) => {
    try {
      return await action(...given);
    } catch (error) {
      if (error.name !== "AbortError") notice(error.message, "bad");
      return undefined;
    }
  };
}
