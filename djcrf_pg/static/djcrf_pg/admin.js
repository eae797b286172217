// The overview's figures and charts: they ask each two seconds while the page is seen.
"use strict";

const PERIOD = 2000, SECONDS = 120, WIDTH = 600, HEIGHT = 120;
const histories = new Map();

function show(section, name, text) {
  for (const place of section.querySelectorAll(`[data-fact="${name}"]`)) place.textContent = text;
}

function size(bytes) {
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let step = 0;
  for (; bytes >= 1024 && step < units.length - 1; step += 1) bytes /= 1024;
  return `${step ? bytes.toFixed(1) : bytes} ${units[step]}`;
}

function draw(section, history) {
  const now = history.at(-1).at;
  for (const name of ["rate", "lag"]) {
    const most = Math.max(...history.map((each) => each[name]), name === "rate" ? 1 : 0.1);
    const points = history.map((each) => {
      const x = WIDTH * (1 - (now - each.at) / SECONDS), y = HEIGHT - 4 - (HEIGHT - 8) * each[name] / most;
      return `${x.toFixed(1)},${y.toFixed(1)}`;
    });
    section.querySelector(`.djcrf-${name}`).setAttribute("points", points.join(" "));
    show(section, `most-${name}`, name === "rate" ? Math.round(most).toString() : most.toFixed(1));
  }
}

function take(section, state) {
  if (state.error) return show(section, "leader", state.error);
  const { last, history } = histories.get(section) ?? { history: [] };
  show(section, "leader", state.leader ?? "Nobody leads");
  show(section, "lag", `${state.lag.toFixed(1)} s`);
  show(section, "size", size(state.size));
  if (last && state.at > last.at) {
    // After a crash the server counts from 0.
    const rate = Math.max(state.written - last.written, 0) / (state.at - last.at);
    history.push({ at: state.at, rate, lag: state.lag });
    while (state.at - history[0].at > SECONDS) history.shift();
    show(section, "rate", rate < 10 ? rate.toFixed(1) : Math.round(rate).toString());
    draw(section, history);
  }
  histories.set(section, { last: state, history });
}

async function look(sections) {
  try {
    const response = await fetch(sections[0].dataset.state, { headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    const states = await response.json();
    for (const section of sections) {
      if (states[section.dataset.database]) take(section, states[section.dataset.database]);
    }
  } catch (error) {
    for (const section of sections) show(section, "rate", `not known: ${error.message}`);
  }
}

const sections = [...document.querySelectorAll("[data-state]")].filter((each) => each.querySelector("svg"));
if (sections.length) {
  (async () => {
    for (;;) {
      if (!document.hidden) await look(sections);
      await new Promise((resolve) => setTimeout(resolve, PERIOD));
    }
  })();
}
