// What a task says, by the shape of its answer.

import { make, milliseconds } from "./dom.js";

/**
 * Write an answer into its branch.
 * @param {import("./picture.js").Branch} branch
 * @param {object} answer
 * @param {string} text What was asked; spans count in its characters.
 * @param {{trunk: number, branch: number} | undefined} timing Milliseconds.
 */
export function show(branch, answer, text, timing) {
  branch.row.classList.remove("waiting");
  branch.row.classList.add("answered");
  branch.answer.replaceChildren(...said(answer, text), ...cut(answer));
  branch.more.replaceChildren(...ranked(answer), ...listed(answer));
  if (!timing) return;
  branch.time.replaceChildren(...took(timing));
  const { trunk, branch: own } = timing;
  branch.spent.textContent = `${milliseconds(trunk)} in the trunk, ${milliseconds(own)} in its branch; `;
}

/** Write why there is no answer. */
export function fail(branch, reason) {
  branch.row.classList.remove("waiting");
  branch.row.classList.add("failed");
  branch.answer.replaceChildren(make("span", { class: "reason" }, reason));
}

/** An answer in a few words. */
export function inWords(answer) {
  if ("label" in answer) return answer.label ?? "none of these";
  if ("labels" in answer) return answer.labels.map((item) => item.label).join(", ") || "no label";
  if ("value" in answer) return number(answer.value);
  return answer.spans.map((span) => `${span.text} (${span.label})`).join(", ") || "nothing found";
}

function said(answer, text) {
  if ("label" in answer) {
    const label = answer.label ?? "none of these";
    return [make("span", { class: answer.label === null ? "label none" : "label" }, label), ...scored(answer.score)];
  }
  if ("labels" in answer) {
    if (!answer.labels.length) return [make("span", { class: "label none" }, "no label")];
    return answer.labels.map((item) =>
      make("span", { class: "chip" }, make("span", { class: "label" }, item.label), make("span", { class: "number" }, number(item.score))),
    );
  }
  if ("value" in answer) return [make("span", { class: "label value" }, number(answer.value))];
  if (!answer.spans.length) return [make("span", { class: "label none" }, "nothing found")];
  return [make("span", { class: "tagged" }, ...marked(answer.spans, text))];
}

function scored(score) {
  return [make("span", { class: "score" }, ...bar(score), make("span", { class: "number" }, number(score)))];
}

/** A bar, where the score is a share. */
function bar(score) {
  if (!(score >= 0 && score <= 1)) return [];
  const filled = make("span", { class: "filled" });
  filled.style.setProperty("--share", `${score * 100}%`);
  return [make("span", { class: "meter", "aria-hidden": "true" }, filled)];
}

/** The text with its spans, which count characters and not JavaScript's halves of them. */
function marked(spans, text) {
  const characters = Array.from(text);
  const parts = [];
  let end = 0;
  for (const span of spans) {
    if (span.start > end) parts.push(characters.slice(end, span.start).join(""));
    parts.push(
      make("mark", { title: number(span.score) }, characters.slice(span.start, span.end).join(""), make("span", { class: "tag" }, span.label)),
    );
    end = span.end;
  }
  if (end < characters.length) parts.push(characters.slice(end).join(""));
  return parts;
}

function cut(answer) {
  const found = answer.truncated;
  if (!found) return [];
  const text = `cut: ${found.kept} of ${found.tokens ?? found.given} tokens were read`;
  return [make("span", { class: "cut" }, text)];
}

function ranked(answer) {
  if (!answer.top) return [];
  return [rows(answer.top.map((item) => [item.label, item.score]), "The best labels")];
}

function listed(answer) {
  if (!answer.spans?.length) return [];
  return [rows(answer.spans.map((span) => [`${span.text} · ${span.label}`, span.score]), "What was found")];
}

function rows(items, title) {
  const body = items.map(([label, score]) =>
    make("tr", {}, make("th", { scope: "row" }, label), make("td", {}, ...bar(score)), make("td", { class: "number" }, number(score))),
  );
  return make("table", {}, make("caption", { class: "hidden" }, title), make("tbody", {}, ...body));
}

function took({ trunk, branch }) {
  const total = trunk + branch;
  const both = make("span", { class: "both", "aria-hidden": "true" }, make("span", { class: "trunk-part" }), make("span", { class: "branch-part" }));
  both.dataset.total = String(total);
  both.style.setProperty("--trunk", String(trunk));
  both.style.setProperty("--branch", String(branch));
  return [make("span", { class: "total" }, milliseconds(total)), both];
}

function number(value) {
  return Math.abs(value) >= 1000 ? value.toFixed(0) : value.toFixed(3);
}
