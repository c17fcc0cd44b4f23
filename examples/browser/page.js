import { follow } from "./follow.js";

const { token, conversation } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const url = location.origin;
const messages = `${url}/v1/conversations/${conversation}/messages`;
const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
const shown = new Map();
let stop = () => {};

// From the latest page on; again when what follows cannot be told as a change.
async function start() {
  stop();
  const page = await (await fetch(`${messages}?limit=50`, { headers })).json();
  shown.clear();
  apply({ superseded: [], messages: page.data });
  stop = follow({ url, token, conversation, page, apply, restart: start });
}

function apply({ superseded, messages }) {
  for (const [low, high] of superseded) {
    for (const seq of shown.keys()) if (low <= seq && seq <= high) shown.delete(seq);
  }
  for (const message of messages) shown.set(message.seq, message);
  const lines = [...shown.values()].sort((one, other) => one.seq - other.seq).map((message) => {
    const line = document.createElement("li");
    line.value = message.seq;
    // As text: what people say is never HTML.
    line.textContent = message.deleted_at ? "(deleted)" : message.content;
    return line;
  });
  document.querySelector("#messages").replaceChildren(...lines);
}

// The id is ours, so that a try whose answer was lost stores nothing twice.
async function say(content) {
  const body = JSON.stringify({ id: crypto.randomUUID(), content });
  for (let pause = 250; ; pause = Math.min(2 * pause, 10_000)) {
    const answer = await fetch(messages, { method: "POST", headers, body }).catch(() => null);
    if (answer && answer.status < 500 && answer.status !== 429) return answer.ok;
    const told = 1000 * Number(answer?.headers.get("retry-after"));
    await new Promise((goOn) => setTimeout(goOn, told || pause));
  }
}

document.querySelector("#say").addEventListener("submit", (event) => {
  event.preventDefault();
  const { words } = event.target.elements;
  say(words.value);
  words.value = "";
});

start();
