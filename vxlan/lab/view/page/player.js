// Plays journeys one after the other, in beats: all that happens at the same distance
// from the sender happens at the same time.  It keeps the clock of the page: tables
// change when the packet that changes them arrives on the drawing, not when it did.

import {Token} from "./stage.js";

const BEAT = 900, REST = 450, LINGER = 1100;   // milliseconds
const MOST_WAITING = 40;

export class Player {
  constructor(stage, page) {
    this.stage = stage; this.page = page;
    this.waiting = []; this.current = null; this.later = [];
    this.paused = false; this.speed = 1; this.steps = 0; this.unplayed = 0;
    this.wake = () => {};
    this.run();
  }

  // -- from outside

  add(journey) {
    this.waiting.push(journey);
    if (this.waiting.length > MOST_WAITING) { this.unplayed += 1; this.waiting.shift(); }
    this.changed();
  }

  replay(journey) { this.waiting.unshift(journey); this.cut = true; this.changed(); }

  // Do something when the packets that led to it have been played; see `holds`.
  at(host, kind, when, apply) {
    this.later.push({host, kind, when, apply});
    this.wake();
    if (this.later.length > 2000) this.catchUp(true);
  }

  pause(yes) { this.paused = yes; this.steps = 0; this.changed(); }

  step() { this.paused = true; this.steps += 1; this.changed(); }

  skip() { this.unplayed = 0; this.waiting.length = 0; this.cut = true; this.catchUp(true); this.changed(); }

  changed() { this.page.playing(this); this.wake(); }

  // -- the loop

  async run() {
    for (;;) {
      try {
        this.catchUp(false);
        const journey = this.paused && !this.steps ? null : this.waiting.shift();
        if (journey) await this.play(journey);
        else await this.sleep(100);
      } catch (error) {   // one packet that cannot be played is no reason to stop
        console.error(error);
        this.current = null;
        this.changed();
      }
    }
  }

  sleep(time) { return new Promise(done => { const timer = setTimeout(done, time); this.wake = () => { clearTimeout(timer); done(); }; }); }

  catchUp(all) {
    const journeys = [this.current, ...this.waiting].filter(Boolean);
    const due = this.later.filter(one => all || !journeys.some(journey => holds(journey, one)));
    if (!due.length) return;
    this.later = this.later.filter(one => !due.includes(one));
    for (const one of due.sort((a, b) => a.when - b.when)) one.apply();
  }

  async play(journey) {
    this.current = journey; this.cut = false;
    this.page.begins(journey);
    this.changed();
    const tokens = new Map(), seen = journey.seen = new Set();
    while (!this.cut) {
      const beat = nextBeat(journey, seen);
      if (!beat) { if (journey.done) break; await this.sleep(60); continue; }
      if (!await this.mayGo()) break;
      for (const number of beat) seen.add(number);
      await this.beat(journey, beat, tokens);
    }
    if (!this.cut) await this.close(journey, tokens);
    for (const token of tokens.values()) token.remove();
    this.stage.light([]);
    journey.seen = null; this.current = null;
    this.page.ends(journey);
    this.changed();
  }

  async mayGo() {
    while (this.paused && !this.steps && !this.cut) await this.sleep(1000);
    if (this.steps) this.steps -= 1;
    return !this.cut;
  }

  async beat(journey, beat, tokens) {
    const steps = beat.map(number => journey.steps[number]);
    const taken = new Set(), moves = [];
    for (const [index, step] of steps.entries()) {
      let token = tokens.get(step.from);
      const place = step.from === null ? step.stop : journey.steps[step.from].stop;
      if (token && !taken.has(step.from)) taken.add(step.from);
      else token = token ? token.copy(place) : new Token(this.stage, journey.word, place, journey.overlay ? this.stage.colour(journey.vni()) : "plain");
      moves.push({token, step, way: this.stage.route(place, step.stop), lead: !index});
      tokens.set(beat[index], token);
    }
    for (const from of taken) tokens.delete(from);
    this.page.hop(journey, steps, this.paused);
    await Promise.all(moves.map(move => this.travel(journey, move)));
    this.page.frame(journey, steps[0]);
    this.stage.light(steps.map(step => step.stop));
    this.catchUp(false);
    if (!this.cut) await this.sleepScaled(REST);
  }

  travel(journey, {token, step, way, lead}) {
    const points = way.map(place => ({place, ...this.stage.at(place)}));
    const lengths = points.slice(1).map((point, index) => Math.abs(point.x - points[index].x) + Math.abs(point.y - points[index].y));
    const total = lengths.reduce((sum, one) => sum + one, 0), settle = () => { token.wrap(step.vni); token.move(points.at(-1)); };
    if (!total || this.page.still()) { settle(); return Promise.resolve(); }
    return new Promise(done => {
      let gone = 0, last = performance.now();
      const tick = now => {
        gone += (now - last) / BEAT * this.speed; last = now;
        if (gone >= 1 || this.cut) { settle(); done(); return; }
        this.place(token, points, lengths, ease(gone) * total, step, journey, lead);
        requestAnimationFrame(tick);
      };
      requestAnimationFrame(tick);
    });
  }

  place(token, points, lengths, far, step, journey, lead) {
    let index = 0;
    while (index < lengths.length - 1 && far > lengths[index]) far -= lengths[index++];
    const a = points[index], b = points[index + 1], part = lengths[index] ? far / lengths[index] : 1;
    token.move(along(a, b, part));
    if (points.slice(0, index + 1).some(point => this.stage.vteps.has(point.place))) {
      token.wrap(step.vni);
      if (lead) this.page.frame(journey, step);
    }
  }

  async close(journey, tokens) {
    for (const [number, token] of tokens) {
      const step = journey.steps[number], end = journey.endOf(step);
      token.end(end.kind, end.text);
    }
    this.page.closes(journey);
    await this.sleepScaled(LINGER);
  }

  async sleepScaled(time) {
    let left = time;
    while (left > 0 && !this.cut) { const before = performance.now(); await this.sleep(Math.min(50, left)); left -= (performance.now() - before) * this.speed; }
  }
}

// Whether a journey must be played further before something is shown that happened at a
// host.  What it learned shows when the packet that told it comes out of its VTEP;
// everything else when all that passed the host before has been played.
function holds(journey, {host, kind, when}) {
  const here = journey.steps.map((step, number) => ({...step, number})).filter(step => step.stop.startsWith(`${host}/`));
  const open = step => !journey.seen?.has(step.number);
  if (kind !== "learned" && kind !== "moved") return here.some(step => step.when <= when && open(step));
  const inward = here.filter(step => step.dir === "in");
  return inward.some(step => step.rank === 5 && step.when <= when) && inward.some(open);
}

// The numbers of the steps that come next: all of the lowest rank that was not played.
function nextBeat(journey, seen) {
  const open = journey.steps.map((step, number) => [step, number]).filter(([, number]) => !seen.has(number));
  if (!open.length) return null;
  const rank = Math.min(...open.map(([step]) => step.rank));
  return open.filter(([step]) => step.rank === rank).map(([, number]) => number);
}

function ease(part) { return part < .5 ? 2 * part * part : 1 - (2 - 2 * part) ** 2 / 2; }

// Wires leave a box vertically: half of the height, then across, then the rest.
function along(a, b, part) {
  const up = Math.abs(b.y - a.y) / 2, across = Math.abs(b.x - a.x), length = 2 * up + across || 1;
  const far = part * length, sy = Math.sign(b.y - a.y), sx = Math.sign(b.x - a.x);
  if (far <= up) return {x: a.x, y: a.y + sy * far};
  if (far <= up + across) return {x: a.x + sx * (far - up), y: a.y + sy * up};
  return {x: b.x, y: a.y + sy * (far - across)};
}
