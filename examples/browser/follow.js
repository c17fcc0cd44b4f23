import { io } from "socket.io-client";

export function follow({ url, token, conversation, page, apply, restart }) {
  let mine = { epoch: page.epoch, rev: page.rev };
  let asking = null;
  const socket = io(url, { auth: { token }, transports: ["websocket"] });

  function take(change) {
    if (change.reset || change.epoch !== mine.epoch) return restart();
    if (change.rev <= mine.rev) return;
    if (change.since > mine.rev) return void catchUp();
    mine = { epoch: change.epoch, rev: change.rev };
    apply(change);
  }

  // Once at a time; what is not answered is asked again with the next change or position.
  function catchUp() {
    asking ??= ask().finally(() => (asking = null));
    return asking;
  }

  async function ask() {
    for (let more = true; more; ) {
      const answer = await fetch(
        `${url}/v1/conversations/${conversation}/changes?since=${mine.rev}&epoch=${mine.epoch}`,
        { headers: { authorization: `Bearer ${token}` } },
      );
      if (!answer.ok) return;
      const change = await answer.json();
      take(change);
      more = change.next && !change.reset;
    }
  }

  // At the start, and each time the connection comes back.
  socket.on("connect", () => {
    socket.emit("join", { conversation_id: conversation, ...mine }, (answer) => {
      if (!answer.ok) return;
      if (answer.recovered) take(answer.changes);
      else catchUp();
    });
  });
  socket.on("change", (change) => {
    if (change.conversation_id === conversation) take(change);
  });
  // Every 15 seconds: finds a last change that never came.
  socket.on("positions", (positions) => {
    if (positions[conversation] > mine.rev) catchUp();
  });
  return () => socket.disconnect();
}
