// The program under test: `ovation up` on free ports, with its own data folder.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const READY_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 15_000;
const PORTS = ["rest", "grpc", "results", "results-grpc", "admin"];

export class Ovation {
  #data;
  #addresses;
  #demo;
  #process = null;
  #output = "";

  /** Creates a program that is not started. `demo` is the rate, in votes per second, of its demo votes; 0 is none. */
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

  /** Starts the program and waits until it is ready. A restart uses the same data and ports. */
  async start() {
    const program = process.env.OVATION_BIN;
    if (!program) throw new Error("OVATION_BIN is not set: start the tests with ./run");
    const flags = ["--data", this.#data, ...Object.entries(this.#addresses).flatMap(([name, address]) => [`--${name}`, address])];
    if (this.#demo) flags.push("--demo", String(this.#demo));
    const child = spawn(program, ["up", ...flags], { stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    this.#output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (this.#output = (this.#output + text).slice(-4_000)));
    const failed = once(child, "error").then(([error]) => Promise.reject(error));
    failed.catch(() => {});
    await Promise.race([this.#ready(child), failed]);
  }

  async #ready(child) {
    const deadline = Date.now() + READY_TIMEOUT_MS;
    while (Date.now() < deadline) {
      if (child.exitCode !== null) throw new Error(`the program ended with ${child.exitCode}:\n${this.#output}`);
      const response = await fetch(`http://${this.#addresses.admin}/readyz`).catch(() => null);
      if (response?.status === 200) return;
      await pause(50);
    }
    throw new Error(`the program is not ready after ${READY_TIMEOUT_MS} ms:\n${this.#output}`);
  }

  signal(name) {
    this.#process.kill(name);
  }

  /** Sends a signal to the program and waits for its end. */
  async stop(signal = "SIGTERM") {
    const child = this.#process;
    this.#process = null;
    if (!child || child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    const exited = once(child, "exit");
    child.kill("SIGCONT");
    child.kill(signal);
    const killTimer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
    await exited;
    clearTimeout(killTimer);
  }

  async remove() {
    await this.stop("SIGKILL");
    await rm(this.#data, { recursive: true, force: true });
  }

  /** Casts a vote for each name, in order. All votes are on the log when this returns. */
  async cast(...names) {
    for (const name of names) {
      const response = await this.#post("/v1/votes", { name });
      if (response.status !== 202) throw new Error(`vote for ${name}: ${response.status} ${await response.text()}`);
    }
  }

  /** Casts many votes in one batch. `votes` are pairs of a name and a number of votes. */
  async castMany(votes) {
    const batch = votes.flatMap(([name, count]) => Array.from({ length: count }, () => ({ name })));
    const response = await this.#post("/v1/votes/batch", batch);
    if (response.status !== 200) throw new Error(`batch: ${response.status} ${await response.text()}`);
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
 * Returns free ports. All are bound at the same time, so they differ. They are below the range of ports for outgoing connections, so
 * no connection takes one before the program binds it.
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
