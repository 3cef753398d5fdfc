// The list of packets: the same story as the drawing, in words.

export class PacketList {
  constructor(page) {
    this.page = page;
    this.root = document.getElementById("packets");
    this.items = new Map();
  }

  add(journey) {
    const item = document.createElement("li");
    item.dataset.id = journey.id;
    item.innerHTML = "<details><summary><span class='word'></span><span class='line'></span><span class='end'></span></summary><ol></ol><button type='button'>Play it again</button></details>";
    item.querySelector("button").onclick = () => this.page.player.replay(journey);
    item.querySelector("details").ontoggle = () => this.update(journey);
    this.items.set(journey.id, {item, journey});
    this.root.prepend(item);
    while (this.items.size > 100) {
      const [id, old] = this.items.entries().next().value;
      old.item.remove();
      this.items.delete(id);
    }
    this.show(item, journey);
  }

  update(journey) {
    const item = this.items.get(journey.id)?.item;
    if (!item) return;
    const {text, bad} = journey.outcome();
    item.querySelector(".word").textContent = journey.word;
    item.querySelector(".line").textContent = journey.line;
    item.querySelector(".end").textContent = text;
    item.querySelector(".end").classList.toggle("bad", bad);
    if (item.querySelector("details").open)
      item.querySelector("ol").replaceChildren(...journey.steps.map(step => Object.assign(document.createElement("li"), {textContent: `${step.stop}${step.to ? `, to ${step.to}` : ""}: ${step.say}`})));
  }

  now(journey) {
    for (const {item, journey: one} of this.items.values()) {
      item.classList.toggle("now", one === journey);
      if (one === journey) item.setAttribute("aria-current", "true"); else item.removeAttribute("aria-current");
    }
  }

  filter() { for (const {item, journey} of this.items.values()) this.show(item, journey); }

  show(item, journey) { item.hidden = journey.quiet && !document.getElementById("underlay").checked; }

  replayNewest() {
    const newest = [...this.items.values()].reverse().find(({item}) => !item.hidden);
    if (newest) this.page.player.replay(newest.journey);
  }
}
