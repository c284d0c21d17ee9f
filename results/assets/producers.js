// Votes by producer: gRPC, REST, and imports if there are any.

import { formatCount, formatShare } from "./format.js";

const NAMES = { grpc: "gRPC", rest: "REST", import: "Import" };

export function producerSplit(bar, list) {
  const producers = new Map();

  function add(producer) {
    const part = document.createElement("span");
    part.dataset.producer = producer;
    const item = document.createElement("li");
    item.dataset.producer = producer;
    const [name, votes, share] = ["producer", "votes", "share"].map((kind) => {
      const span = document.createElement("span");
      span.className = kind;
      return span;
    });
    name.textContent = NAMES[producer] ?? producer;
    item.append(name, " ", votes, " ", share);
    bar.append(part);
    list.append(item);
    const elements = { part, votes, share };
    producers.set(producer, elements);
    return elements;
  }

  function show({ producers: votesByProducer }) {
    const all = { grpc: 0, rest: 0, ...votesByProducer };
    const sum = Object.values(all).reduce((a, b) => a + b, 0);
    for (const [producer, votes] of Object.entries(all)) {
      const { part, votes: number, share } = producers.get(producer) ?? add(producer);
      part.hidden = votes === 0;
      part.style.flexGrow = votes / (sum || 1);
      number.textContent = formatCount(votes);
      share.textContent = sum ? formatShare(votes / sum) : "–";
    }
  }

  function clear() {
    producers.clear();
    bar.replaceChildren();
    list.replaceChildren();
    show({ producers: {} });
  }

  return { show, clear };
}
