// The program under test: `ovation up` on free ports, with data of its own.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const READY_WITHIN_MS = 30_000;
const STOPPED_WITHIN_MS = 15_000;
const PORTS = ["rest", "grpc", "results", "results-grpc", "admin"];

export class Ovation {
  #data;
  #addresses;
  #demo;
  #process = null;
  #said = "";

  /** `demo` is a rate of votes per second the program casts by itself; 0 is none. */
  static async create(demo) {
    const ovation = new Ovation();
    ovation.#data = await mkdtemp(join(tmpdir(), "ovation-browser-"));
    const ports = await freePorts(PORTS.length);
    ovation.#addresses = Object.fromEntries(PORTS.map((name, i) => [name, `127.0.0.1:${ports[i]}`]));
    ovation.#demo = demo;
    return ovation;
  }

  get url() {
    return `http://${this.#addresses.results}`;
  }

  get restAddress() {
    return this.#addresses.rest;
  }

  /** Starts the program, again on the same data and ports if it ran before, and waits until it is ready. */
  async start() {
    const program = process.env.OVATION_BIN;
    if (!program) throw new Error("OVATION_BIN is not set: start the tests by ./run");
    const flags = ["--data", this.#data, ...Object.entries(this.#addresses).flatMap(([name, address]) => [`--${name}`, address])];
    if (this.#demo) flags.push("--demo", String(this.#demo));
    const child = spawn(program, ["up", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    this.#said = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (this.#said = (this.#said + text).slice(-4_000)));
    const failed = once(child, "error").then(([error]) => Promise.reject(error));
    failed.catch(() => {});
    await Promise.race([this.#ready(child), failed]);
  }

  async #ready(child) {
    const deadline = Date.now() + READY_WITHIN_MS;
    while (Date.now() < deadline) {
      if (child.exitCode !== null) throw new Error(`the program ended with ${child.exitCode}:\n${this.#said}`);
      const answer = await fetch(`http://${this.#addresses.admin}/readyz`).catch(() => null);
      if (answer?.status === 200) return;
      await pause(50);
    }
    throw new Error(`the program is not ready after ${READY_WITHIN_MS} ms:\n${this.#said}`);
  }

  signal(name) {
    this.#process.kill(name);
  }

  /** Ends the program and waits until it is gone. */
  async stop(signal = "SIGTERM") {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    const gone = once(child, "exit");
    child.kill("SIGCONT");
    child.kill(signal);
    const tooLate = setTimeout(() => child.kill("SIGKILL"), STOPPED_WITHIN_MS);
    await gone;
    clearTimeout(tooLate);
  }

  async remove() {
    await this.stop("SIGKILL");
    await rm(this.#data, { recursive: true, force: true });
  }

  /** Casts a vote for each name, in order; each is on the log when this returns. */
  async cast(...names) {
    for (const name of names) {
      const answer = await this.#post("/v1/votes", { name });
      if (answer.status !== 202) throw new Error(`vote for ${name}: ${answer.status} ${await answer.text()}`);
    }
  }

  /** Casts many at once: `votes` is pairs of a name and how many. */
  async castMany(votes) {
    const batch = votes.flatMap(([name, count]) => Array.from({ length: count }, () => ({ name })));
    const answer = await this.#post("/v1/votes/batch", batch);
    if (answer.status !== 200) throw new Error(`batch: ${answer.status} ${await answer.text()}`);
  }

  #post(path, body) {
    return fetch(`http://${this.restAddress}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  }
}

/**
 * Ports that were free a moment ago; held together, so that they differ. They are below those that outgoing connections are
 * given, so none of those takes one meanwhile.
 */
async function freePorts(count) {
  const servers = [];
  while (servers.length < count) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createServer().listen(port, "127.0.0.1");
    const isFree = await once(server, "listening").then(
      () => true,
      () => false,
    );
    if (isFree) servers.push(server);
  }
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}
