// The page: what is served, what is asked, and the answers as they come.

import { fail, inWords, show } from "./answers.js";
import { Refusal, channel, predict, readChannels, readLayers, readRelease, token } from "./api.js";
import { byId, count, make, milliseconds } from "./dom.js";
import { Picture } from "./picture.js";

const PARTS = ["tokenise", "queue", "trunk", "branch", "serialise", "network"];
const BEST = 5; // Labels that an opened answer shows.
const AGAIN = 15_000; // Milliseconds until the release is looked at again.

const page = { picture: null, digest: null, drawn: null, unchosen: new Set(), asking: null };

async function start() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  byId("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("ask").requestSubmit();
  });
  byId("all").addEventListener("click", () => choose(true));
  byId("none").addEventListener("click", () => choose(false));
  byId("tasks").addEventListener("change", noteChosen);
  byId("channel").addEventListener("change", () => {
    page.asking?.abort();
    channel.set(byId("channel").value);
    refresh();
  });
  byId("forget").addEventListener("click", () => {
    token.forget();
    location.reload();
  });
  await refresh();
  setInterval(() => document.hidden || page.asking || refresh(), AGAIN);
}

// What is served

async function refresh() {
  try {
    offer(await withToken(readChannels));
    const asked = channel.get();
    const release = await withToken(readRelease);
    const drawn = `${asked} ${release.digest}`;
    const layers = drawn === page.drawn ? null : await withToken(readLayers);
    if (channel.get() !== asked) return; // Another was chosen meanwhile, and is read by now.
    if (layers) draw(layers, release);
    page.drawn = drawn;
    describe(release);
    byId("forget").hidden = !token.get();
    // A link bears no token.
    byId("metrics").hidden = Boolean(token.get());
    notice("gone", null);
  } catch (error) {
    notice("gone", error.message);
  } finally {
    byId("model").setAttribute("aria-busy", "false");
  }
}

/** The channels to choose from; the page's address says from now on which is asked. */
function offer(names) {
  byId("channels").hidden = !names.length;
  if (!names.length) return;
  if (channel.get() === null) channel.set(names[0]);
  const shown = [...byId("channel").options].map((option) => option.value);
  if (shown.join() !== names.join()) {
    byId("channel").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  }
  byId("channel").value = channel.get();
}

function draw(layers, release) {
  page.picture = new Picture(byId("model"), layers, release.tasks);
  page.digest = release.digest;
  byId("sum").hidden = true;
  byId("pair").hidden = !page.picture.named("pair").length;
  byId("tasks").replaceChildren(
    make("legend", { class: "hidden" }, "Tasks to ask"),
    ...[...page.picture.branches.keys()].sort().map((name) => {
      const box = make("input", { type: "checkbox", value: name, checked: !page.unchosen.has(name) });
      return make("label", { class: "pick" }, box, make("span", {}, name));
    }),
  );
  noteChosen();
}

function describe(release) {
  const since = new Date(release.since);
  const facts = [
    ["Release", release.release ?? "unnumbered"],
    ["Digest", make("code", { title: `sha256:${release.digest}` }, release.digest.slice(0, 12))],
    ...(release.channel ? [[channel.get() === null ? "Channel" : "Follows", release.channel], ["Revision", release.revision]] : []),
    ["Since", make("time", { datetime: release.since, title: release.since }, since.toLocaleString())],
  ];
  byId("release").replaceChildren(
    ...facts.map(([name, value]) => make("div", { class: `fact-${name.toLowerCase()}` }, make("dt", {}, name), make("dd", {}, value))),
  );
  const refused = release.refused;
  const which = refused?.release == null ? "A newer release" : `Release ${refused.release}`;
  notice("refused", refused && `${which} was refused, and this one goes on: ${refused.reason}`);
  const fault = release.store_error;
  const when = fault && new Date(fault.since).toLocaleTimeString();
  notice("store", fault && `The channel cannot be followed since ${when}, and this release goes on: ${fault.reason}`);
}

function notice(kind, text) {
  byId(`notice-${kind}`)?.remove();
  if (text) byId("notices").append(make("p", { id: `notice-${kind}`, class: kind }, text));
}

// Which tasks

function choose(all) {
  for (const box of byId("tasks").querySelectorAll("input")) box.checked = all;
  noteChosen();
}

function noteChosen() {
  const boxes = [...byId("tasks").querySelectorAll("input")];
  page.unchosen = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
  const chosen = boxes.length - page.unchosen.size;
  byId("chosen").textContent = page.unchosen.size ? `${chosen} of ${boxes.length}` : `all ${boxes.length}`;
}

// Asking

/** The inputs of a request, each with the tasks that take it: one text, and with a second one pairs. */
function inputs(text, second) {
  const chosen = (input) => page.picture.named(input).filter((name) => !page.unchosen.has(name));
  const found = [{ id: "single", text, tasks: chosen("single") }];
  if (second.trim()) found.push({ id: "pair", text, text_pair: second, tasks: chosen("pair") });
  return found.filter((item) => item.tasks.length);
}

async function ask() {
  if (!page.picture) return;
  page.asking?.abort();
  const text = byId("text").value;
  const asked = inputs(text, byId("pair").hidden ? "" : byId("text_pair").value);
  problem(null);
  byId("status").textContent = "";
  byId("sum").hidden = true;
  if (!asked.length) {
    problem(new Refusal("No task is chosen that takes this. Tasks on pairs need a second text."));
    return;
  }
  const asking = new AbortController();
  page.asking = asking;
  const names = new Set(asked.flatMap((item) => item.tasks));
  for (const branch of page.picture.branches.values()) branch.clear();
  page.picture.mark(names);
  for (const name of names) page.picture.branches.get(name).wait();
  byId("send").setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    const told = await withToken(() => read(asked, text, asking.signal));
    summarise(told, names, performance.now() - began);
    if (told.refused) problem(new Refusal(told.refused));
  } catch (error) {
    if (error.name !== "AbortError") problem(error);
  } finally {
    if (page.asking === asking) {
      page.asking = null;
      byId("send").removeAttribute("aria-busy");
      for (const branch of page.picture.branches.values()) branch.row.classList.remove("waiting");
    }
  }
}

async function read(asked, text, signal) {
  const told = { answers: 0, errors: 0, last: "", timing: null, digest: page.digest, refused: null };
  for await (const line of predict({ inputs: asked, top_k: BEST, timing: true }, signal)) {
    const branch = page.picture.branches.get(line.task);
    if (line.release) told.digest = line.release.digest;
    else if (line.end) told.timing = line.timing;
    else if (line.answer && branch) {
      show(branch, line.answer, text, line.timing);
      told.answers += 1;
      told.last = `${line.task}: ${inWords(line.answer)}`;
    } else if (branch) {
      fail(branch, line.error);
      told.errors += 1;
    } else if (line.error) told.refused ??= line.error;
  }
  return told;
}

function summarise(told, names, elapsed) {
  scaleTimes();
  if (!told.answers && !told.errors) return;
  const answers = told.answers === 1 ? told.last : count(told.answers, "answer");
  const failed = told.errors ? `, ${told.errors} failed` : "";
  byId("status").textContent = `${answers}${failed} in ${milliseconds(elapsed)}`;
  const timing = { ...told.timing };
  timing.network = Math.max(0, elapsed - Object.values(timing).reduce((sum, part) => sum + part, 0));
  const parts = PARTS.filter((part) => timing[part] !== undefined);
  byId("split").replaceChildren(
    ...parts.map((part) => {
      const piece = make("span", { class: `part-${part}` });
      piece.style.setProperty("--part", String(timing[part]));
      return piece;
    }),
  );
  byId("parts").replaceChildren(
    ...parts.map((part) => make("div", { class: `part-${part}` }, make("dt", {}, part), make("dd", {}, milliseconds(timing[part])))),
  );
  const { shared, own, total, single } = page.picture.account(names);
  byId("saving").textContent =
    `${total} layers computed: ${shared} shared, ${own} of the tasks' own. ` +
    `A full model for each task would have computed ${single}.`;
  byId("sum").hidden = false;
  if (told.digest !== page.digest) refresh();
}

/** Bars of time are as long as the slowest answer's is. */
function scaleTimes() {
  const bars = [...document.querySelectorAll(".both")];
  const longest = Math.max(...bars.map((bar) => Number(bar.dataset.total)), 0);
  for (const bar of bars) bar.style.setProperty("--longest", String(longest || 1));
}

function problem(error) {
  byId("problem").hidden = !error;
  byId("problem").textContent = error?.message ?? "";
  const wrong = error?.field?.endsWith("text_pair") ? "text_pair" : error?.field?.includes("text") ? "text" : null;
  for (const id of ["text", "text_pair"]) {
    if (id === wrong) byId(id).setAttribute("aria-invalid", "true");
    else byId(id).removeAttribute("aria-invalid");
  }
}

// Tokens

/** Call, and where the server wants a token, ask for one and call again. */
async function withToken(work) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (error.status !== 401) throw error;
      await login(token.get() ? "The server does not know this token." : null);
    }
  }
}

let loggingIn = null;

function login(reason) {
  loggingIn ??= new Promise((resolve) => {
    const dialog = byId("login");
    byId("login-problem").hidden = !reason;
    byId("login-problem").textContent = reason ?? "";
    byId("token").value = "";
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("login-form").addEventListener(
      "submit",
      () => {
        token.set(byId("token").value.trim());
        loggingIn = null;
        resolve();
      },
      { once: true },
    );
    dialog.showModal();
  });
  return loggingIn;
}

start();
