// The page: joins the feed to the drawing, the tables and the list, and clicks to actions.

import {Layers} from "./layers.js";
import {Player} from "./player.js";
import {Stage} from "./stage.js";
import {Tables} from "./tables.js";
import {PacketList} from "./packets.js";

const byId = id => document.getElementById(id);
const MOST_JOURNEYS = 200;

class Journey {
  constructor(body, scene) {
    Object.assign(this, {id: body.id, overlay: body.overlay, quiet: body.quiet, scene, steps: [], frames: [], done: false, seen: null});
    this.grow(body);
  }

  grow(body) {
    Object.assign(this, {word: body.word, line: body.line, done: body.done});
    body.frames.forEach((frame, number) => { this.frames[body.firstFrame + number] = frame; });
    body.steps.forEach((step, number) => { this.steps[body.first + number] = step; });
  }

  vni() {
    return this.steps.find(step => step.vni !== null)?.vni
      ?? this.scene.containers.find(one => `${one.name}/eth0` === this.steps[0].stop)?.vni ?? null;
  }

  // How the journey of one copy ended: a kind, a short text for the drawing.
  endOf(step) {
    if (!this.overlay) return {kind: "arrived", text: ""};
    if (step.rank !== 7) return {kind: "lost", text: "✕ not seen again"};
    return step.mine ? {kind: "arrived", text: "✓ received"} : {kind: "ignored", text: "not for me"};
  }

  ends() {
    const from = new Set(this.steps.map(step => step.from));
    return this.steps.filter((_, number) => !from.has(number));
  }

  outcome() {
    if (!this.done) return {text: "under way", bad: false};
    if (!this.overlay) return {text: "", bad: false};
    const at = this.ends().filter(step => step.rank === 7 && step.mine).map(step => step.stop.split("/")[0]);
    if (at.length) return {text: `✓ ${at.join(", ")}`, bad: false};
    return {text: `✕ lost after ${this.steps.at(-1).stop}`, bad: true};
  }
}

class Page {
  constructor() {
    this.journeys = new Map();
    this.layers = new Layers();
    this.stage = new Stage(byId("stage"));
    this.player = new Player(this.stage, this);
    this.list = new PacketList(this);
    this.motion = matchMedia("(prefers-reduced-motion: reduce)");
    this.wires = new Map();
  }

  // -- the feed

  listen() {
    const feed = new EventSource("feed");
    feed.onopen = () => this.link(true);
    feed.onerror = () => this.link(false);
    const on = (kind, take) => feed.addEventListener(kind, message => take(JSON.parse(message.data)));
    on("scene", body => this.scene(body));
    on("packet", body => this.packet(body));
    on("vtep", body => this.player.at(body.host, "vtep", body.time, () => this.tables.snapshot(body)));
    on("event", body => this.player.at(body.host, body.event, body.time, () => this.event(body)));
    on("drop", body => this.player.at(body.host, "drop", body.time, () => this.drop(body)));
    on("wire", body => { this.wires.set(body.host, body); this.stage.narrow(body.host, body.mtu, body.full); });
    on("done", body => this.note(body.said));
    on("skipped", body => this.note(`${body.count} packets passed too fast to be drawn.`));
    on("lost", body => this.note(`This page was too slow: ${body.count} messages are missing.`));
  }

  link(on) {
    byId("link").textContent = on ? "live" : "no connection";
    byId("link").classList.toggle("off", !on);
  }

  scene(scene) {
    if (JSON.stringify(scene) === this.drawn) return;
    this.drawn = JSON.stringify(scene);
    this.world = scene;
    document.title = `${scene.name} – pyvxlan lab`;
    byId("lab-name").textContent = scene.name;
    byId("lab-name").title = scene.title;
    this.player.skip();
    this.stage.draw(scene);
    this.tables?.stop();
    this.tables = new Tables(scene);
    for (const {host, mtu, full} of this.wires.values()) this.stage.narrow(host, mtu, full);
    options("containers", scene.containers.map(one => one.name));
    options("hosts", scene.hosts.map(one => one.name));
  }

  packet(body) {
    let journey = this.journeys.get(body.id);
    if (journey) journey.grow(body);
    else if (body.first) return;   // it began before this page
    else {
      journey = new Journey(body, this.world);
      this.journeys.set(body.id, journey);
      if (this.journeys.size > MOST_JOURNEYS) this.journeys.delete(this.journeys.keys().next().value);
      this.list.add(journey);
      if (!journey.quiet || byId("underlay").checked) this.player.add(journey);
    }
    this.list.update(journey);
    this.player.wake();
  }

  event(body) {
    this.tables.event(body);
    const name = this.tables.name(body.mac), where = body.remote && this.tables.where(body.remote.address);
    if (body.event === "learned") this.aside("learn", `${body.host} learns: ${name} is behind ${where}.`);
    else if (body.event === "moved") this.aside("learn", `${body.host} believes that ${name} moved: it is behind ${where} now.`);
    else if (body.event === "aged") this.happened(`${body.host} forgets ${name}: it was silent too long.`);
    else if (body.event === "path_mtu") this.happened(`${body.host} finds the path to ${where}: ${body.detail}.`);
    else if (body.event === "mtu_changed") this.happened(`${body.host}: overlay MTU: ${body.detail}`);
    else if (["remote_down", "conflict", "fault", "tap_lost", "tap_back"].includes(body.event))
      this.happened([body.host, body.event.replace("_", " "), where, body.detail].filter(Boolean).join(": "));
  }

  drop(body) {
    this.tables.drop(body);
    this.stage.badge(body.host, `✕ ${body.reason}`);
    this.aside("dropped", `The VTEP of ${body.host} drops ${body.count === 1 ? "a packet" : `${body.count} packets`}: ${body.meaning}.`);
  }

  // -- the player asks and tells

  still() { return this.motion.matches; }

  begins(journey) { this.list.now(journey); this.frame(journey, journey.steps[0]); }

  hop(journey, steps, aloud) {
    const said = [...new Set(steps.map(step => step.say))];
    const shown = said.length > 2 ? [said[0], `… and ${said.length - 1} more the same way.`] : said;
    byId("say").replaceChildren(...shown.map(text => line("", text)));
    if (aloud) this.live(said.join(" "));
  }

  frame(journey, step) {
    const place = journey.overlay ? "as the container knows it" : "between the hosts";
    this.layers.show(`${journey.word}, as it passes ${step.stop}`, journey.frames[step.frame], this.stage.colour(journey.vni()), place);
  }

  closes(journey) {
    const {text, bad} = journey.outcome();
    if (bad) this.aside("dropped", text);
    this.live(`${journey.word}: ${journey.line}: ${text.replace("✓", "arrived at").replace("✕", "")}`);
  }

  ends(journey) { this.list.now(null); this.list.update(journey); }

  playing(player) {
    byId("pause").setAttribute("aria-pressed", player.paused);
    byId("pause").querySelector(".sign").textContent = player.paused ? "▶" : "❚❚";
    byId("pause").querySelector(".text").textContent = player.paused ? "Go on" : "Pause";
    const count = player.waiting.length;
    const parts = [count && `${count} waiting`, player.unplayed && `${player.unplayed} only listed`].filter(Boolean);
    byId("waiting").textContent = parts.join(", ") || (player.paused ? "paused" : "");
  }

  aside(kind, text) {
    const say = byId("say");
    while (say.children.length >= 3) say.firstElementChild.remove();
    say.append(line(kind, text));
    this.live(text);
  }

  live(text) { byId("live").textContent = text; }

  happened(text) { byId("event").textContent = text; }

  note(text, bad = false) { byId("note").textContent = text; byId("note").classList.toggle("bad", bad); }

  // -- clicks and keys

  async act(action, body) {
    try {
      const answer = await fetch(`do/${action}`, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
      const {ok, said} = answer.ok ? await answer.json() : {ok: false, said: await answer.text()};
      this.note(said, !ok);
    } catch { this.note("The lab does not answer: is `pyvxlan lab view` still running?", true); }
  }

  wire() {
    for (const form of document.querySelectorAll(".actions form"))
      form.addEventListener("submit", event => { event.preventDefault(); this.act(form.id, values(form)); });
    byId("pause").onclick = () => this.player.pause(!this.player.paused);
    byId("step").onclick = () => this.player.step();
    byId("skip").onclick = () => this.player.skip();
    byId("theme").onclick = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    byId("help").onclick = () => byId("help-text").showModal();
    byId("underlay").onchange = () => this.list.filter();
    for (const radio of document.getElementsByName("speed")) radio.onchange = () => { this.player.speed = Number(radio.value); };
    document.addEventListener("keydown", event => this.key(event));
  }

  key(event) {
    const typing = event.target.matches?.("select, input[type=text]");
    if (event.ctrlKey || event.metaKey || event.altKey || typing || !byId("single").checked || byId("help-text").open) return;
    const onButton = event.target.closest?.("button, summary, input");
    if (event.key === " " && onButton) return;   // Space presses what has the focus
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const speed = {1: 0, 2: 1, 3: 2}[key];
    const button = document.querySelector(`button[data-key="${CSS.escape(key)}"]`);
    if (button) button.click();
    else if (speed !== undefined) document.getElementsByName("speed")[speed].click();
    else if (key === "u") byId("underlay").click();
    else if (key === "r") this.list.replayNewest();
    else if (key === "+" || key === "=") scale(1.1);
    else if (key === "-") scale(1 / 1.1);
    else return;
    event.preventDefault();
  }
}

function options(kind, names) {
  for (const select of document.querySelectorAll(`select.${kind}`)) {
    const first = select.classList.contains("third") ? 2 : select.classList.contains("second") ? 1 : 0;
    select.replaceChildren(...names.map(name => new Option(name)));
    select.selectedIndex = Math.min(first, names.length - 1);
  }
}

function values(form) {
  return Object.fromEntries([...new FormData(form)].map(([key, value]) => [key, /^\d+$/.test(value) ? Number(value) : value]));
}

function line(kind, text) { return Object.assign(document.createElement("span"), {className: kind, textContent: text}); }

function theme(name) { document.documentElement.dataset.theme = name; localStorage.setItem("theme", name); }

function scale(by) {
  const style = document.documentElement.style, now = Number(style.getPropertyValue("--scale")) || 1;
  style.setProperty("--scale", Math.min(2, Math.max(.7, now * by)));
}

theme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
const page = new Page();
page.wire();
page.listen();
