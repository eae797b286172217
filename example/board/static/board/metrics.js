const SAMPLES = 500;
const BARS = 110;
const BUCKET = 100; // ms
const BUCKETS = 10; // one second

/** The figures on top of the page. They are drawn four times a second, whatever arrives. */
export class Metrics {
  #events = 0;
  #drawn = -1;
  #peak = 0;
  #buckets = new Map(); // number of a tenth of a second → events in it
  #samples = [];
  #box = document.getElementById("latencies");
  #canvas = this.#box.querySelector("canvas");

  constructor() {
    setInterval(() => this.#draw(), 250);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#drawBars());
    new ResizeObserver(() => this.#drawBars()).observe(this.#canvas);
  }

  /** Count an event; `ms` only for those whose delay is the system's own, not that of a queue of 10 000. */
  count(ms = null) {
    this.#events++;
    const bucket = Math.floor(performance.now() / BUCKET);
    this.#buckets.set(bucket, (this.#buckets.get(bucket) ?? 0) + 1);
    if (ms === null) return;
    this.#samples.push(ms);
    if (this.#samples.length > SAMPLES) this.#samples.shift();
  }

  #draw() {
    const oldest = Math.floor(performance.now() / BUCKET) - BUCKETS;
    for (const bucket of this.#buckets.keys()) if (bucket <= oldest) this.#buckets.delete(bucket);
    const rate = [...this.#buckets.values()].reduce((sum, count) => sum + count, 0);
    this.#peak = Math.max(this.#peak, rate);
    show("metric-rate", rate.toLocaleString("en"));
    show("metric-peak", this.#peak.toLocaleString("en"));
    if (this.#events === this.#drawn) return;
    this.#drawn = this.#events;
    show("metric-events", this.#events.toLocaleString("en"));
    document.getElementById("metric-events").dataset.value = this.#events;
    const sorted = this.#samples.toSorted((a, b) => a - b);
    show("metric-p50", percentile(sorted, 0.5));
    show("metric-p95", percentile(sorted, 0.95));
    this.#drawBars();
  }

  #drawBars() {
    const bars = this.#samples.slice(-BARS);
    this.#box.hidden = bars.length === 0;
    if (!bars.length) return;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    this.#canvas.width = width * devicePixelRatio;
    this.#canvas.height = height * devicePixelRatio;
    const context = this.#canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    context.fillStyle = getComputedStyle(this.#canvas).color;
    const top = Math.ceil(Math.max(10, ...bars));
    const step = width / BARS;
    bars.forEach((ms, i) => {
      const tall = Math.max(1.5, (ms / top) * height);
      context.fillRect(width - (bars.length - i) * step, height - tall, Math.max(1, step - 1), tall);
    });
    show("latencies-top", top.toLocaleString("en"));
  }
}

function percentile(sorted, part) {
  if (!sorted.length) return "–";
  const ms = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))];
  return ms < 100 ? ms.toFixed(1) : Math.round(ms).toLocaleString("en");
}

function show(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
}
