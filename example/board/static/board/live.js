import { now, parseTime } from "./schedule.js";

const CALL_TIMEOUT = 15_000; // ms; a subscription may wait 10 s for a listener
const HEARTBEAT = 15_000; // ms between two looks at the clock, which also tell whether the other side still answers
const LONGEST_DELAY = 5_000; // ms between two attempts to connect

/** A DCRF WebSocket that stays connected: calls actions, hands out changes, and reconnects with a growing delay. */
export class Live {
  #url;
  #handlers;
  #socket = null;
  #calls = new Map();
  #lastId = 0;
  #attempt = 0;
  #retry = null;
  #heartbeat = null;
  #offset = 0; // ms by which the database's clock is ahead of the browser's

  /**
   * @param {string} url
   * @param {{load: function(Live): Promise, change: function(object): void, state: function(string, string): void}} handlers
   *   `load` runs after each (re)connect and subscribes and lists; `change` gets each event; `state` gets
   *   `connecting`, `live` or `waiting`, and what to tell the user.
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
    socket.onmessage = (message) => this.#receive(JSON.parse(message.data));
    socket.onclose = () => this.#closed(socket);
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
      await this.#handlers.load(this);
      if (socket !== this.#socket) return;
      this.#attempt = 0;
      this.#handlers.state("live", "Live");
      this.#heartbeat = setInterval(() => this.#readClock(3).catch(() => socket.close()), HEARTBEAT);
    } catch (error) {
      if (socket !== this.#socket || socket.readyState !== WebSocket.OPEN) return; // `onclose` takes care of it
      this.#handlers.state("connecting", error.message);
      socket.close();
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

  #receive(message) {
    if (!("response_status" in message)) {
      this.#handlers.change(message);
      return;
    }
    if (message.action === "resync") {
      this.#handlers.reload(this).catch(() => this.#socket?.close());
      return;
    }
    const call = this.#calls.get(message.request_id);
    if (!call) return;
    this.#calls.delete(message.request_id);
    clearTimeout(call.timer);
    if (message.response_status < 400) call.resolve(message.data);
    else call.reject(new Error(message.errors.map((error) => (error.detail ?? error).toString()).join(" ")));
  }

  #closed(socket) {
    if (socket !== this.#socket) return;
    clearInterval(this.#heartbeat);
    for (const call of this.#calls.values()) {
      clearTimeout(call.timer);
      call.reject(new Error("The connection closed."));
    }
    this.#calls.clear();
    // With jitter: after a restart of the server not all tabs knock in the same instant.
    const delay = Math.min(LONGEST_DELAY, 250 * 2 ** this.#attempt++) * (0.75 + Math.random() / 2);
    this.#handlers.state("waiting", "Reconnecting");
    this.#retry = setTimeout(() => this.connect(), delay);
  }
}
