import { milliseconds } from "./feed.js";
import { onNextFrame } from "./schedule.js";

const BURST_GAP = 2_000; // ms of silence that end a burst
const MISSING = -1;

/** The 10 000 cells as pixels, and the figures of the latest burst of them. */
export class Grid {
  #canvas = document.getElementById("grid");
  #context = this.#canvas.getContext("2d");
  #side = this.#canvas.width;
  #values = new Int16Array(this.#side * this.#side).fill(MISSING);
  #burst = null;
  #colours = null;
  #ask = onNextFrame(() => this.#draw());

  constructor() {
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#colours = null;
      this.#ask();
    });
  }

  load(cells) {
    this.#values.fill(MISSING);
    for (const [x, y, value] of cells) this.#values[y * this.#side + x] = value;
    this.#ask();
  }

  change(action, cell, ms) {
    this.#values[cell.y * this.#side + cell.x] = action === "delete" ? MISSING : cell.value;
    const at = performance.now();
    if (!this.#burst || at - this.#burst.latest > BURST_GAP) this.#burst = { rows: 0, started: at, first: ms };
    Object.assign(this.#burst, { rows: this.#burst.rows + 1, latest: at, last: ms });
    this.#ask();
  }

  #draw() {
    this.#colours ??= palette();
    const image = this.#context.createImageData(this.#side, this.#side);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) {
      pixels[i] = this.#values[i] === MISSING ? 0 : this.#colours[Math.min(255, this.#values[i])];
    }
    this.#context.putImageData(image, 0, 0);
    if (!this.#burst) return;
    const { rows, started, latest, first, last } = this.#burst;
    document.getElementById("burst").dataset.rows = rows;
    show("burst-rows", rows.toLocaleString("en"));
    show("burst-first", milliseconds(first) || "–");
    show("burst-last", milliseconds(last) || "–");
    show("burst-rate", latest > started ? Math.round((rows / (latest - started)) * 1000).toLocaleString("en") : "–");
  }
}

function show(id, text) {
  document.getElementById(id).textContent = text;
}

/** 256 colours between those of the style sheet, as the numbers that a canvas has for pixels. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const canvas = new OffscreenCanvas(256, 1);
  const context = canvas.getContext("2d");
  const gradient = context.createLinearGradient(0, 0, 256, 0);
  const stops = ["--heat-0", "--heat-1", "--heat-2", "--heat-3"];
  stops.forEach((name, i) => gradient.addColorStop(i / (stops.length - 1), style.getPropertyValue(name).trim()));
  context.fillStyle = gradient;
  context.fillRect(0, 0, 256, 1);
  return new Uint32Array(context.getImageData(0, 0, 256, 1).data.buffer);
}
