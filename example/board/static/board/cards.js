import { onNextFrame } from "./schedule.js";

const SHOWN = 60; // cards per column; a statement may insert any number of tasks
const ANIMATED = 80; // more changes than that in one frame are shown without moving
const STATUSES = ["todo", "doing", "done"];

const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** The board: all tasks by primary key, and a card for each that is in sight. */
export class Cards {
  tasks = new Map();
  #cards = new Map();
  #changed = new Map(); // pk of a task → action, since the last frame
  #ask = onNextFrame(() => this.#draw());

  load(tasks) {
    this.tasks = new Map(tasks.map((task) => [task.id, task]));
    for (const pk of new Set([...this.tasks.keys(), ...this.#cards.keys()])) this.#changed.set(pk, "load");
    this.#ask();
  }

  /** Apply a change of a task and return what was there before. */
  changeTask(action, task) {
    const before = this.tasks.get(task.id);
    if (action === "delete") this.tasks.delete(task.id);
    else this.tasks.set(task.id, task);
    this.#changed.set(task.id, action);
    this.#ask();
    return before;
  }

  #draw() {
    const changed = this.#changed;
    this.#changed = new Map();
    const columns = Object.fromEntries(STATUSES.map((status) => [status, []]));
    for (const task of this.tasks.values()) columns[task.status]?.push(task);

    const moving = !calm.matches && changed.size <= ANIMATED && ![...changed.values()].includes("load");
    const places = moving ? new Map([...this.#cards].map(([pk, card]) => [pk, card.getBoundingClientRect()])) : null;

    const shown = new Set();
    for (const status of STATUSES) {
      const tasks = columns[status].sort(latestFirst);
      drawTotals(status, tasks);
      this.#drawColumn(document.getElementById(`column-${status}`), tasks.slice(0, SHOWN), changed, shown);
    }
    for (const [pk, card] of this.#cards) {
      if (shown.has(pk)) continue;
      card.remove();
      this.#cards.delete(pk);
    }
    if (places) this.#animate(places, changed);
  }

  #drawColumn(list, tasks, changed, shown) {
    let next = list.firstElementChild;
    for (const task of tasks) {
      shown.add(task.id);
      let card = this.#cards.get(task.id);
      if (!card || changed.has(task.id)) {
        const filled = this.#fill(card ?? newCard(task.id), task);
        this.#cards.set(task.id, filled);
        card = filled;
      }
      if (card === next) next = next.nextElementSibling;
      else list.insertBefore(card, next);
    }
  }

  #fill(card, task) {
    Object.assign(card.dataset, { status: task.status, points: task.points, labels: task.labels.map((label) => label.id).join(",") });
    const [title, chips, pk, points] = card.querySelectorAll("[data-part]");
    title.textContent = task.title;
    pk.textContent = `#${task.id}`;
    points.textContent = task.points;
    points.title = `${task.points} points`;
    chips.replaceChildren(...task.labels.toSorted((a, b) => a.name.localeCompare(b.name)).map(chip));
    return card;
  }

  /** Let cards glide from where they were (measured before the change) to where they are, and light up. */
  #animate(places, changed) {
    for (const [pk, card] of this.#cards) {
      const from = places.get(pk);
      const to = from && card.getBoundingClientRect();
      if (to && (Math.abs(from.left - to.left) > 1 || Math.abs(from.top - to.top) > 1)) {
        const shift = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
        card.animate([{ transform: shift }, { transform: "none" }], { duration: 320, easing: "cubic-bezier(.2,.7,.2,1)" });
      } else if (!from) {
        card.animate([{ opacity: 0, transform: "translateY(-6px)" }, {}], { duration: 220, easing: "ease-out" });
      }
      const action = changed.get(pk);
      if (action) {
        const colour = `var(--${action})`;
        card.animate([{ borderColor: colour, boxShadow: `0 0 0 2px color-mix(in oklab, ${colour} 35%, transparent)` }, {}], {
          duration: 1400,
          easing: "ease-out",
        });
      }
    }
  }
}

/** A label as a coloured chip. */
export function chip(label) {
  const element = document.createElement("span");
  element.className = "chip";
  element.style.setProperty("--hue", label.hue);
  element.dataset.label = label.id;
  element.textContent = label.name;
  return element;
}

function newCard(pk) {
  const card = document.createElement("li");
  card.className = "card";
  card.id = `task-${pk}`;
  card.dataset.testid = "task";
  card.dataset.pk = pk;
  card.innerHTML =
    '<span class="card-title" data-part></span><span class="chips" data-part></span>' +
    '<span class="pk" data-part></span><span class="points" data-part></span>';
  return card;
}

function latestFirst(a, b) {
  if (a.updated_at !== b.updated_at) return a.updated_at < b.updated_at ? 1 : -1;
  return b.id - a.id;
}

function drawTotals(status, tasks) {
  const total = tasks.reduce((sum, task) => sum + task.points, 0);
  document.querySelector(`[data-count="${status}"]`).textContent = tasks.length.toLocaleString("en");
  document.querySelector(`[data-points="${status}"]`).textContent = total.toLocaleString("en");
  const more = document.querySelector(`[data-more="${status}"]`);
  more.hidden = tasks.length <= SHOWN;
  more.textContent = `and ${(tasks.length - SHOWN).toLocaleString("en")} more`;
}
