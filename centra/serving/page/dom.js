// Elements. Whatever comes from the server or from people is text, never markup.

/**
 * Make an element.
 * @param {string} tag
 * @param {Object<string, string | boolean | null>} attributes "class", "title" …; null or false leaves one out.
 * @param {...(Node | string | number)} children Texts become text nodes.
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** The element of an id, which the page has. */
export function byId(id) {
  return document.getElementById(id);
}

/** Seconds or milliseconds for people: three digits are enough. */
export function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toPrecision(3)}\u00a0s`;
  return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)}\u00a0ms`;
}

/** "1 layer", "2 layers". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
