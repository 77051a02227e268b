// The merged model: the frozen layers run down, each task's branch leaves at its tap and ends in its
// answer. What a request computed is marked as taken.

import { count, make } from "./dom.js";

const SHOWN = 4; // Own layers that are drawn one by one.

/** The picture of one release. */
export class Picture {
  /**
   * @param {HTMLElement} root Is emptied.
   * @param {object} layers As GET /v1/release/layers tells.
   * @param {Object<string, {version: string | null}>} tasks As GET /v1/release tells.
   */
  constructor(root, layers, tasks) {
    /** @type {Map<string, Branch>} */
    this.branches = new Map();
    this.stages = new Map();
    this.trunks = layers.trunks;
    const depth = Math.max(0, ...layers.trunks.flatMap((t) => t.tasks.map((b) => b.depth)));
    root.style.setProperty("--deep", String(Math.min(depth, SHOWN + 1)));
    root.replaceChildren(...layers.trunks.map((trunk) => this.#trunk(trunk, tasks)));
  }

  /** Tasks that take one text, or two. */
  named(input) {
    return [...this.branches.values()].filter((b) => b.input === input).map((b) => b.name);
  }

  /**
   * Mark what answers to these tasks are made of; every other part fades.
   * @param {Set<string>} asked
   */
  mark(asked) {
    for (const branch of this.branches.values()) {
      const taken = asked.has(branch.name);
      branch.row.classList.toggle("taken", taken);
      branch.row.classList.toggle("idle", !taken);
    }
    for (const trunk of this.trunks) {
      const taps = trunk.tasks.filter((task) => asked.has(task.name)).map((task) => task.tap_layer);
      const deepest = Math.max(-1, ...taps);
      for (const [number, stage] of this.stages.get(trunk.backbone)) {
        stage.classList.toggle("taken", number <= deepest);
        stage.classList.toggle("through", number < deepest);
        stage.classList.toggle("idle", number > deepest);
        markBus(stage.querySelector(".branches"));
      }
    }
  }

  /**
   * How many layers answer these tasks, and how many a full model per task would compute.
   * @param {Set<string>} asked
   */
  account(asked) {
    let shared = 0;
    let own = 0;
    let single = 0;
    for (const trunk of this.trunks) {
      const tasks = trunk.tasks.filter((task) => asked.has(task.name));
      // Tasks in another precision have a trunk of their own.
      for (const precision of new Set(tasks.map((task) => task.precision))) {
        const taps = tasks.filter((t) => t.precision === precision).map((t) => t.tap_layer);
        shared += Math.max(...taps);
      }
      own += tasks.reduce((sum, task) => sum + task.depth, 0);
      single += tasks.length * trunk.num_layers;
    }
    return { shared, own, total: shared + own, single };
  }

  #trunk(trunk, tasks) {
    const stages = new Map();
    this.stages.set(trunk.backbone, stages);
    const list = make("div", { class: "stages" });
    for (let number = 0; number <= trunk.layers; number += 1) {
      const here = trunk.tasks.filter((task) => task.tap_layer === number);
      const stage = this.#stage(number, here, tasks);
      stages.set(number, stage);
      list.append(stage);
    }
    const unused = trunk.num_layers - trunk.layers;
    if (unused) {
      const text = make("span", { class: "note" }, `${count(unused, "layer")} of the backbone that no task needs`);
      list.append(make("div", { class: "stage unused" }, make("div", { class: "layer" }, `+${unused}`), text));
    }
    const held = `${trunk.layers} of ${count(trunk.num_layers, "layer")} shared`;
    return make(
      "section",
      { class: "trunk" },
      make("h2", {}, "Backbone ", make("code", { title: trunk.backbone }, trunk.backbone.slice(0, 12)), make("span", { class: "muted" }, held)),
      list,
    );
  }

  #stage(number, here, tasks) {
    const name = make("span", { class: "name" }, number ? "layer" : "embeddings");
    const layer = make("div", { class: "layer" }, name, make("span", { class: "nth" }, number));
    const stage = make("div", { class: number ? "stage" : "stage first" }, layer);
    if (here.length) {
      const rows = here.map((task) => {
        const branch = new Branch(task, tasks[task.name]);
        this.branches.set(task.name, branch);
        return branch.row;
      });
      const label = number ? `Tasks that read layer ${number}` : "Tasks that read the embeddings";
      stage.classList.add("tapped");
      stage.append(make("ul", { class: "branches", "aria-label": label }, ...rows));
    }
    return stage;
  }
}

/** The lines to the lowest taken branch are taken. */
function markBus(branches) {
  const rows = [...(branches?.children ?? [])];
  const last = rows.findLastIndex((row) => row.classList.contains("taken"));
  rows.forEach((row, place) => row.classList.toggle("passed", place < last));
}

/** One task's way from its tap, and the place of its answer. */
export class Branch {
  constructor(task, named) {
    this.name = task.name;
    this.labels = task.labels;
    this.input = task.input;
    this.kind = task.kind;
    const version = named?.version ? `@${named.version}` : "";
    this.answer = make("div", { class: "said" });
    this.time = make("div", { class: "time" });
    this.more = make("div", { class: "more" });
    this.spent = make("span");
    const facts = `reads layer ${task.tap_layer}, adds ${count(task.depth, "layer")}`;
    const module = named?.module ? `, module ${named.module}` : "";
    const precision = task.precision === "fp32" ? "" : `, ${task.precision}`;
    const card = make(
      "details",
      { class: "card" },
      make(
        "summary",
        {},
        make(
          "div",
          { class: "who" },
          make("span", { class: "task" }, ...breakable(task.name)),
          make("span", { class: "version" }, version),
          make("span", { class: "gives" }, task.gives.split(",")[0] + (task.input === "pair" ? ", of pairs" : "")),
        ),
        this.answer,
        this.time,
      ),
      this.more,
      make("p", { class: "facts muted" }, this.spent, `${task.kind}, ${task.gives}; ${facts}${precision}${module}`),
    );
    card.style.setProperty("--kind", task.color);
    this.row = make("li", { class: "branch" }, ownLayers(task.depth), card);
    this.row.dataset.task = task.name;
    this.clear();
  }

  /** Forget what it said; instead of an answer, what there is to say. */
  clear() {
    for (const part of [this.time, this.more, this.spent]) part.replaceChildren();
    this.answer.replaceChildren(make("span", { class: "labels" }, this.labels.join(" · ")));
    this.row.classList.remove("waiting", "answered", "failed");
  }

  /** Show that it is asked. */
  wait() {
    this.answer.replaceChildren();
    this.row.classList.add("waiting");
  }
}

/** A name that may go on in the next line after a mark in it. */
function breakable(name) {
  return name.split(/(?<=[_.-])/).flatMap((part, place) => (place ? [make("wbr"), part] : [part]));
}

function ownLayers(depth) {
  const drawn = Math.min(depth, SHOWN);
  const boxes = Array.from({ length: drawn }, (_, i) => make("span", { class: "box" }, i + 1));
  if (depth > SHOWN) boxes.push(make("span", { class: "box rest" }, `+${depth - SHOWN}`));
  return make("div", { class: "own", "aria-hidden": "true" }, ...boxes);
}
