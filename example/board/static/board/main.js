import { Cards } from "./cards.js";
import { Feed, describeLabel, describeTask } from "./feed.js";
import { Grid } from "./grid.js";
import { Live } from "./live.js";
import { Metrics } from "./metrics.js";

const cards = new Cards();
const feed = new Feed();
const grid = new Grid();
const metrics = new Metrics();
const board = document.getElementById("board");
const lastWrite = document.getElementById("last-write");

/* --- the way in: the WebSocket, from which everything on the board comes */

/** Subscribe first, then list: a change between the two is in both, and applying it twice does no harm. */
async function load(live) {
  await live.call("subscribe");
  await reload(live);
}

/** List alone: after a TRUNCATE, say, which no event of a row can tell, the subscriptions are still there. */
async function reload(live) {
  const [tasks, labels, cells] = [await live.call("list"), await live.call("list_labels"), await live.call("list_cells")];
  cards.load(tasks, labels);
  grid.load(cells);
}

function change({ event: action, table, row, committed_at: committedAt }) {
  const ms = live.since(committedAt);
  if (table === "board_cell") {
    metrics.count();
    grid.change(action, row, ms);
    feed.addCell(action, ms);
    return;
  }
  metrics.count(ms);
  let summary;
  if (table === "board_label") summary = describeLabel(action, cards.changeLabel(action, row), row);
  else summary = describeTask(action, cards.changeTask(action, row), row, cards.labels);
  feed.add({ action, table, pk: row.id, ms, summary });
}

function state(name, text) {
  document.getElementById("connection").dataset.state = name;
  document.getElementById("connection-text").textContent = name === "connecting" ? "Connecting" : text;
  board.dataset.ready = name === "live";
  const banner = document.getElementById("banner");
  // An error of the server stays in sight until the board is live again.
  if (name === "live") banner.hidden = true;
  if (name === "connecting" && text !== "Connecting") {
    banner.textContent = text;
    banner.hidden = false;
  }
}

const live = new Live(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/board/`, { load, reload, change, state });
live.connect();

/* --- the way out: plain HTTP */

document.getElementById("writes").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  const button = submit.submitter;
  button.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(button.formAction, { method: "POST", body: new FormData(submit.target) });
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const { rows, note, ms } = await response.json();
    const count = `${rows.toLocaleString("en")} ${rows === 1 ? "row" : "rows"}`;
    lastWrite.textContent = `${button.firstElementChild.textContent}: ${note || count}, ${ms} ms`;
  } catch (error) {
    lastWrite.textContent = `${button.firstElementChild.textContent} failed: ${error.message}`;
  } finally {
    button.removeAttribute("aria-busy");
  }
});

/* --- the command lines */

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const code = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // Outside localhost and HTTPS there is no clipboard: mark the text, the user's own shortcut does the rest.
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
