// Lets a picture be a player's timeline; `element` is the root of the component that holds both.
const players = () => [...element.querySelectorAll('audio')];
const plots = audio => audio.closest('.dv-player').querySelectorAll('.dv-plot');
const place = audio => plots(audio).forEach(plot => {
  let head = plot.querySelector('.dv-head');
  if (!head) {
    head = document.createElement('i');
    head.className = 'dv-head';
    plot.appendChild(head);
  }
  head.style.left = 100 * audio.currentTime / (audio.duration || 1) + '%';
});
const follow = audio => {
  place(audio);
  if (!audio.paused && audio.isConnected) requestAnimationFrame(() => follow(audio));
};
const say = () => {
  const button = element.querySelector('.dv-ab');
  const both = players();
  if (!button || both.length < 2) return;
  const now = both.find(each => !each.paused);
  const other = both.find(each => each !== now);
  button.textContent = now ? 'Switch to ' + other.ariaLabel.toLowerCase() : 'Play and compare';
  element.querySelector('.dv-hear').textContent = now ? 'You hear: ' + now.ariaLabel.toLowerCase() : '';
};
// Media events do not bubble, but they can be caught on their way down; the players come and go with each run.
element.addEventListener('play', event => {
  players().forEach(each => { if (each !== event.target) each.pause(); });
  follow(event.target);
  say();
}, true);
element.addEventListener('pause', say, true);
element.addEventListener('seeked', event => place(event.target), true);
element.addEventListener('click', event => {
  const plot = event.target.closest('.dv-plot');
  if (plot) {
    const own = [...plot.closest('.dv-player').querySelectorAll('audio')];
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    (own.length ? own : players()).forEach(each => {
      if (each.duration) each.currentTime = share * each.duration;
    });
  }
  if (event.target.closest('.dv-ab')) {
    const [first, second] = players();
    if (!first || !second) return;
    const now = [first, second].find(each => !each.paused);
    const next = now ? (now === first ? second : first) : first;
    if (now) next.currentTime = Math.min(now.currentTime, next.duration || now.currentTime);
    next.play();
  }
});
