import { now, parseTime } from "./schedule.js";

const CALL_TIMEOUT = 15_000; // ms; a subscription may wait 10 s for a listener
const HEARTBEAT = 15_000; // ms between two looks at the clock, which also show whether the server still answers
const LONGEST_DELAY = 5_000; // ms between two attempts to connect

/**
 * A DCRF WebSocket that stays complete: it reconnects with a growing delay, and goes on behind the last change it has.
 *
 * Whatever makes that impossible (a cursor that is refused, a resync) has one answer: forget the cursors, connect again,
 * and begin with all rows.
 */
export class Live {
  #url;
  #handlers;
  #socket = null;
  #cursors = null; // table → the cursor of its last change; null: begin with all rows
  #reason = ""; // why that is
  #resumedAt = 0; // the database's time: what was written before it was missed
  #lostAt = null;
  #calls = new Map();
  #lastId = 0;
  #attempt = 0;
  #retry = null;
  #heartbeat = null;
  #offset = 0; // ms by which the database's clock is ahead of the browser's

  /**
   * @param {string} url
   * @param {{load: function(object): void, change: function(object, boolean): void,
   *   state: function(string, string, string=): void, back: function(number, boolean, string): void}} handlers
   *   `load` gets all rows, in place of those that are there; `change` gets each event, and whether the tab has missed it
   *   and catches up; `state` gets `connecting`, `live`, `waiting` or `cut`, the words for it, and a problem if there is
   *   one. `back` gets for how many ms the connection was lost, whether what was missed comes now, and if not, so that
   *   all rows were loaded, why.
   */
  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    addEventListener("online", () => this.#retry && this.connect());
  }

  connect() {
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#handlers.state("connecting", "Connecting");
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#start(socket);
    socket.onmessage = (message) => socket === this.#socket && this.#receive(socket, JSON.parse(message.data));
    socket.onclose = () => this.#reconnect(socket);
  }

  /** Lose the connection, until `connect()` is called. */
  cut() {
    this.#drop();
    this.#handlers.state("cut", "Cut");
  }

  /** Call an action of the consumer and wait for its reply. */
  call(action, data = {}) {
    const request_id = `${action}-${++this.#lastId}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#calls.delete(request_id);
        reject(new Error(`No answer to “${action}” in ${CALL_TIMEOUT / 1000} s.`));
      }, CALL_TIMEOUT);
      this.#calls.set(request_id, { resolve, reject, timer });
      this.#socket.send(JSON.stringify({ ...data, action, request_id }));
    });
  }

  /** Milliseconds from a time of the database until now, or null where there is none. */
  since(iso) {
    return iso ? Math.max(0, now() + this.#offset - parseTime(iso)) : null;
  }

  async #start(socket) {
    try {
      await this.#readClock(5);
      const { cursors, rows, now: at } = await this.call("follow", { since: this.#cursors });
      // The changes that were missed come behind this reply, and what stands here has run when they do.
      if (rows) this.#handlers.load(rows);
      this.#cursors = cursors; // after the rows: whoever has the cursor has them
      this.#resumedAt = rows ? 0 : parseTime(at);
      if (this.#lostAt !== null) this.#handlers.back(performance.now() - this.#lostAt, !rows, this.#reason);
      this.#lostAt = null;
      this.#attempt = 0;
      this.#heartbeat = setInterval(() => this.#readClock(3).catch(() => this.#reconnect(socket)), HEARTBEAT);
      this.#handlers.state("live", "Live");
    } catch (error) {
      if (socket !== this.#socket) return; // closed meanwhile
      if (this.#cursors && (error.status === 400 || error.status === 410)) {
        this.#forget(error.message);
        this.#reconnect(socket);
      } else {
        this.#reconnect(socket, error.message);
      }
    }
  }

  /** Work out by how much the clocks differ: the quickest answer has the least room for error. */
  async #readClock(times) {
    let quickest = Infinity;
    for (let i = 0; i < times; i++) {
      const asked = now();
      const reply = await this.call("clock");
      const answered = now();
      if (answered - asked < quickest) {
        quickest = answered - asked;
        this.#offset = parseTime(reply.now) - (asked + answered) / 2;
      }
    }
  }

  #receive(socket, message) {
    if (!("response_status" in message)) {
      this.#handlers.change(message, parseTime(message.committed_at) <= this.#resumedAt);
      this.#cursors[message.table] = message.cursor;
    } else if (message.action === "resync") {
      // A TRUNCATE, say, which has no event for each row.
      this.#forget(message.data.reason);
      this.#reconnect(socket);
    } else {
      this.#settle(message);
    }
  }

  #settle({ request_id: id, response_status: status, data, errors }) {
    const call = this.#calls.get(id);
    if (!call) return;
    this.#calls.delete(id);
    clearTimeout(call.timer);
    if (status < 400) call.resolve(data);
    else call.reject(Object.assign(new Error(errors.map((error) => error.detail ?? error).join(" ")), { status }));
  }

  #forget(reason) {
    this.#cursors = null;
    this.#reason = reason;
  }

  #reconnect(socket, problem = "") {
    if (socket !== this.#socket) return;
    this.#drop();
    // With jitter: after a restart of the server not all tabs knock in the same instant.
    const delay = Math.min(LONGEST_DELAY, 250 * 2 ** this.#attempt++) * (0.75 + Math.random() / 2);
    this.#handlers.state("waiting", "Reconnecting", problem);
    this.#retry = setTimeout(() => this.connect(), delay);
  }

  #drop() {
    clearTimeout(this.#retry);
    clearInterval(this.#heartbeat);
    if (this.#heartbeat !== null) this.#lostAt = performance.now(); // it was live
    this.#retry = this.#heartbeat = null;
    const socket = this.#socket;
    this.#socket = null; // nothing that it still brings counts
    socket?.close();
    for (const call of this.#calls.values()) {
      clearTimeout(call.timer);
      call.reject(new Error("The connection closed."));
    }
    this.#calls.clear();
  }
}
