// The page works without this: it adds sorting, players that hand over to one another, and a line that moves.
"use strict";
document.documentElement.classList.add("js");

for (const file of document.querySelectorAll(".file")) {
  const players = [...file.querySelectorAll("audio")];
  for (const player of players) {
    const card = player.closest(".card");
    card.classList.add("playable");
    const heads = [...card.querySelectorAll(".head")];
    const move = () => {
      const share = player.duration ? Math.min(1, player.currentTime / player.duration) : 0;
      for (const head of heads) head.style.transform = `translateX(${100 * share}%)`;
      if (!player.paused) requestAnimationFrame(move);
    };
    let chosen = false; // whether somebody has said where to begin; if not, it goes on where the other one was
    player.addEventListener("seeking", () => (chosen ||= player.paused));
    player.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) {
        if (other === player || other.paused) continue;
        if (players.includes(other) && !chosen) player.currentTime = other.currentTime;
        other.pause();
      }
      chosen = false;
      card.classList.add("playing");
      move();
    });
    player.addEventListener("seeked", move);
    player.addEventListener("ended", () => card.classList.remove("playing"));
    for (const plane of card.querySelectorAll(".plane")) {
      plane.addEventListener("click", (event) => {
        const box = plane.getBoundingClientRect();
        player.currentTime = ((event.clientX - box.left) / box.width) * (player.duration || 0);
        chosen = true;
        player.play();
      });
    }
  }
}

for (const head of document.querySelectorAll("th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const value = (row) => row.children[head.cellIndex]?.dataset.value;
    const order = head.dataset.sort === "number" ? (a, b) => a - b : (a, b) => a.localeCompare(b);
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return up ? order(x, y) : order(y, x);
    });
    body.append(...rows);
  });
}
