import { Cards } from "./cards.js";
import { Feed, describeTask } from "./feed.js";
import { Grid } from "./grid.js";
import { Live } from "./live.js";
import { Metrics } from "./metrics.js";
import { onNextFrame } from "./schedule.js";

const cards = new Cards();
const feed = new Feed();
const grid = new Grid();
const metrics = new Metrics();
const board = document.getElementById("board");
const away = document.getElementById("away");
const banner = document.getElementById("banner");
const connection = document.getElementById("connection");
const cut = document.getElementById("cut");
const lastWrite = document.getElementById("last-write");

/* --- the way in: the WebSocket, from which everything on the board comes */

/** How many changes came while the connection was lost, and were made up for since it is back. */
let missed = 0;
const missedText = document.createElement("strong");
missedText.dataset.testid = "missed";
const drawMissed = onNextFrame(() => {
  missedText.dataset.value = missed;
  missedText.textContent = `${missed.toLocaleString("en")} ${missed === 1 ? "change" : "changes"}`;
});

function load({ tasks, cells }) {
  cards.load(tasks);
  grid.load(cells);
}

function change({ event: action, table, row, committed_at: committedAt }, wasMissed) {
  const ms = live.since(committedAt);
  if (wasMissed) {
    missed++;
    drawMissed();
  }
  // What waited for this page says nothing of how long changes take.
  const sample = wasMissed ? null : ms;
  if (table === "board_cell") {
    metrics.count();
    grid.change(action, row, sample);
    feed.addCell(action, ms);
    return;
  }
  metrics.count(sample);
  feed.add({ action, table, pk: row.id, ms, summary: describeTask(action, cards.changeTask(action, row), row) });
}

function state(name, text, problem = "") {
  connection.dataset.state = name;
  document.getElementById("connection-text").textContent = text;
  board.dataset.ready = name === "live";
  cut.textContent = name === "cut" ? "Connect again" : "Cut the connection";
  if (name === "cut") say("cut", "The connection is cut. Changes go on, and this tab receives none of them.");
  // An error of the server stays in sight until the board is live again.
  if (name === "live") banner.hidden = true;
  if (problem) warn(problem);
}

/** Say on top of the page what is wrong: the foot of a panel may be out of sight. */
function warn(problem) {
  banner.textContent = problem;
  banner.hidden = false;
}

/** Say what the page has done since the connection is back: caught up, or loaded everything again. */
function back(ms, resumed, reason) {
  const after = `Back after ${(ms / 1000).toFixed(1)} s`;
  if (resumed) {
    missed = 0;
    say("resumed", `${after}: caught up on `, missedText, ", one for each row. Nothing was loaded again.");
    drawMissed();
  } else {
    say("loaded", `${after}: everything was loaded again (${reason}).`);
  }
}

function say(how, ...words) {
  away.dataset.how = how;
  away.replaceChildren(...words);
  away.hidden = false;
}

const live = new Live(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws/board/`, { load, change, state, back });
live.connect();
cut.addEventListener("click", () => (connection.dataset.state === "cut" ? live.connect() : live.cut()));

/* --- the way out: plain HTTP */

const ANSWER_TIMEOUT = 30_000; // ms; 10 000 rows take a second or two

document.getElementById("writes").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  const button = submit.submitter;
  const name = button.firstElementChild.textContent;
  button.setAttribute("aria-busy", "true");
  try {
    const outcome = await post(button.formAction, new FormData(submit.target));
    lastWrite.textContent = `${name}: ${outcome}`;
    banner.hidden = true;
  } catch (error) {
    lastWrite.textContent = `${name} failed.`;
    warn(`${name} failed: ${error.message}`);
  } finally {
    button.removeAttribute("aria-busy");
  }
});

/** Have the server write, and return what it says. An error says in words what is wrong. */
async function post(address, body) {
  let response;
  try {
    response = await fetch(address, { method: "POST", body, signal: AbortSignal.timeout(ANSWER_TIMEOUT) });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Error(`the server has not answered for ${ANSWER_TIMEOUT / 1000} s.`);
    // The browser's own words for this are "Failed to fetch".
    throw new Error("the server is down. When it is back this tab reconnects by itself; then press the button again.");
  }
  if (!response.ok) throw new Error(`the server answered ${response.status}; its terminal says why.`);
  const { rows, note, ms } = await response.json();
  const count = `${rows.toLocaleString("en")} ${rows === 1 ? "row" : "rows"}`;
  return `${note || count}, ${ms} ms`;
}

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
