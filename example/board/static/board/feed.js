import { chip } from "./cards.js";
import { onNextFrame } from "./schedule.js";

const SHOWN = 60; // lines
const BURST_GAP = 2_000; // ms of silence that end a burst of cells

/** The feed of events: a line each, and one line for a burst of cells. */
export class Feed {
  #list = document.getElementById("feed");
  #empty = document.getElementById("feed-empty");
  #waiting = [];
  #bursts = new Map(); // action → the line that counts its cells
  #ask = onNextFrame(() => this.#draw());

  /** @param {{action: string, table: string, pk: number, ms: ?number, summary: (string|Node)[]}} event */
  add(event) {
    this.#waiting.push(event);
    // Only the latest are ever seen: a flood costs no more than a trickle.
    if (this.#waiting.length > SHOWN) this.#waiting.shift();
    this.#ask();
  }

  /** Count a cell. */
  addCell(action, ms) {
    let burst = this.#bursts.get(action);
    if (!burst || performance.now() - burst.latest > BURST_GAP) {
      burst = { action, table: "board_cell", pk: null, ms, count: 0, summary: [] };
      this.#bursts.set(action, burst);
      this.add(burst);
    }
    burst.count++;
    burst.ms = ms;
    burst.latest = performance.now();
    this.#ask();
  }

  #draw() {
    const fresh = this.#waiting.splice(0);
    this.#list.prepend(...fresh.map((event) => (event.line = newLine(event))).reverse());
    for (const burst of this.#bursts.values()) {
      if (!burst.line) continue;
      burst.line.dataset.rows = burst.count;
      burst.line.querySelector(".summary").textContent = `${burst.count.toLocaleString("en")} rows`;
      burst.line.querySelector(".ms").textContent = milliseconds(burst.ms);
    }
    while (this.#list.childElementCount > SHOWN) this.#list.lastElementChild.remove();
    this.#empty.hidden = this.#list.childElementCount > 0;
  }
}

/** What an event changed, for people. */
export function describeTask(action, before, after) {
  if (action !== "update" || !before) return [after.title];
  const parts = [];
  if (before.title !== after.title) parts.push(`“${before.title}” is now “${after.title}”`);
  if (before.status !== after.status) parts.push(`${before.status} → ${after.status}`);
  if (before.points !== after.points) parts.push(`${before.points} → ${after.points} points`);
  const had = new Map(before.labels.map((label) => [label.id, label]));
  for (const label of after.labels) {
    const was = had.get(label.id);
    had.delete(label.id);
    if (!was) parts.push(["+", chip(label)]);
    else if (was.name !== label.name || was.hue !== label.hue) parts.push([chip(was), "→", chip(label)]);
  }
  for (const label of had.values()) parts.push(["−", chip(label)]);
  return parts.length ? parts.flat() : [after.title];
}

export function milliseconds(ms) {
  if (ms === null) return "";
  if (ms < 100) return `${ms.toFixed(1)} ms`;
  return ms < 10_000 ? `${Math.round(ms).toLocaleString("en")} ms` : `${Math.round(ms / 1000).toLocaleString("en")} s`;
}

function newLine(event) {
  const line = document.createElement("li");
  line.dataset.testid = "event";
  Object.assign(line.dataset, { action: event.action, table: event.table, pk: event.pk ?? "" });
  const what = document.createElement("span");
  what.className = `action ${event.action}`;
  what.textContent = event.action;
  const where = document.createElement("span");
  where.className = "where";
  where.textContent = event.table + (event.pk === null ? "" : ` #${event.pk}`);
  const ms = document.createElement("span");
  ms.className = "ms";
  ms.textContent = milliseconds(event.ms);
  const summary = document.createElement("span");
  summary.className = "summary";
  summary.append(...event.summary.flatMap((part) => [part, " "]));
  line.append(what, where, ms, summary);
  return line;
}
