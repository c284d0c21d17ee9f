// How the votes came in: gRPC against REST, and imports if there are any.

import { formatCount, formatShare } from "./format.js";

const NAMES = { grpc: "gRPC", rest: "REST", import: "Import" };

export function doorSplit(bar, list) {
  const doors = new Map();

  function open(door) {
    const part = document.createElement("span");
    part.dataset.door = door;
    const item = document.createElement("li");
    item.dataset.door = door;
    const [name, votes, share] = ["door", "votes", "share"].map((kind) => {
      const span = document.createElement("span");
      span.className = kind;
      return span;
    });
    name.textContent = NAMES[door] ?? door;
    item.append(name, " ", votes, " ", share);
    bar.append(part);
    list.append(item);
    const made = { part, votes, share };
    doors.set(door, made);
    return made;
  }

  function show({ doors: votesByDoor }) {
    const all = { grpc: 0, rest: 0, ...votesByDoor };
    const sum = Object.values(all).reduce((a, b) => a + b, 0);
    for (const [door, votes] of Object.entries(all)) {
      const { part, votes: number, share } = doors.get(door) ?? open(door);
      part.hidden = votes === 0;
      part.style.flexGrow = votes / (sum || 1);
      number.textContent = formatCount(votes);
      share.textContent = sum ? formatShare(votes / sum) : "–";
    }
  }

  function clear() {
    doors.clear();
    bar.replaceChildren();
    list.replaceChildren();
    show({ doors: {} });
  }

  return { show, clear };
}
