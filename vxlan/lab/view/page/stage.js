// The drawing: hosts in columns, the overlay above, the underlay below, each VTEP on the
// border between them.  Places that a packet can be at are nodes of a graph; a packet
// moves along the shortest way between two of them.

const SVG = "http://www.w3.org/2000/svg";
const SMALLEST = .42;   // of its size; a wider drawing scrolls
const GUTTER = 56, NARROWEST = 380, STATION_Y = 52, BRIDGE_Y = 178, TAP_Y = 239, VTEP_Y = 308, LINK_Y = 412, NET_Y = 506;

export function element(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export class Stage {
  constructor(svg) {
    this.svg = svg;
    this.places = new Map();   // name -> {x, y}
    this.ways = new Map();     // name -> [name]
    this.shapes = new Map();   // name -> element that lights up
    this.wires = new Map();    // host -> {line, label}
    this.vteps = new Set();    // names of places
  }

  // Each VNI has a colour of its own, and is written wherever the colour is.
  colour(vni) { const place = this.vnis.indexOf(vni); return place < 0 ? "" : `v${place % 4}`; }

  draw(scene) {
    this.vnis = [...new Set(scene.hosts.flatMap(host => host.segments.map(one => one.vni)))].sort((a, b) => a - b);
    for (const old of [...this.svg.children]) if (!["title", "desc"].includes(old.tagName)) old.remove();
    this.places.clear(); this.ways.clear(); this.shapes.clear(); this.wires.clear(); this.vteps.clear();
    const slots = this.columns(scene), height = 552;
    const width = slots.reduce((sum, slot) => sum + slot.width, 0);
    this.svg.setAttribute("viewBox", `${-GUTTER} 0 ${width + GUTTER} ${height}`);
    this.svg.style.minWidth = `${width * SMALLEST}px`;
    this.back = this.layer(); this.lines = this.layer(); this.front = this.layer();
    this.badges = this.layer(); this.tokens = this.layer();
    this.ground(width, height);
    this.networks(scene, slots);
    for (const slot of slots) if (slot.router) this.router(slot); else this.host(slot);
    this.svg.querySelector("desc").textContent = describe(scene);
  }

  layer() { return this.svg.appendChild(element("g")); }

  // Hosts from left to right, a router between the networks that it joins.
  columns(scene) {
    const of = host => {
      const stations = scene.containers.filter(one => one.host === host.name);
      const width = Math.max(NARROWEST, stations.length * 190 + 30, host.segments.length * 190 + 60);
      return {host, stations, width};
    };
    const [first, ...others] = scene.networks;
    const on = network => scene.hosts.filter(host => host.network === network).map(of);
    const slots = [...on(first), ...scene.routers.map(router => ({router, width: 300})), ...others.flatMap(on)];
    slots.reduce((left, slot) => { slot.x = left + slot.width / 2; return left + slot.width; }, 0);
    return slots;
  }

  ground(width, height) {
    this.back.append(
      element("rect", {x: -GUTTER, y: VTEP_Y, width: width + GUTTER, height: height - VTEP_Y, class: "ground"}),
      element("line", {x1: -GUTTER, x2: width, y1: VTEP_Y, y2: VTEP_Y, class: "border"}),
      this.sideways(VTEP_Y / 2, "OVERLAY"), this.sideways((VTEP_Y + height) / 2, "UNDERLAY"));
  }

  sideways(y, content) {
    return element("text", {transform: `translate(${22 - GUTTER} ${y}) rotate(-90)`, class: "zone", "text-anchor": "middle", "dominant-baseline": "central"}, content);
  }

  // A network is a bar from its first link to its last; links of a router end at its edge.
  networks(scene, slots) {
    for (const network of scene.networks) {
      const hosts = slots.filter(slot => slot.host?.network === network).map(slot => [slot.host.name, slot.x, 140]);
      const routers = slots.filter(slot => slot.router).flatMap(slot => Object.entries(slot.router.links)
        .filter(([, [name]]) => name === network).map(([link], number) => [`${slot.router.name}/${link}`, slot.x + this.side(slot.router, link), 44]));
      const links = [...hosts, ...routers].sort((a, b) => a[1] - b[1]);
      if (!links.length) continue;
      const left = links[0][1] - links[0][2], right = links.at(-1)[1] + links.at(-1)[2];
      this.front.append(
        element("rect", {x: left, y: NET_Y - 24, width: right - left, height: 48, rx: 24, class: "net"}),
        this.text((left + right) / 2, NET_Y + 9, scene.networks.length === 1 ? "the network between the hosts" : `network “${network}”`, "soft"));
      links.forEach(([owner, x], number) => {
        this.place(`net:${owner}`, x, NET_Y);
        if (number) this.join(`net:${links[number - 1][0]}`, `net:${owner}`);
      });
    }
  }

  side(router, link) { return Object.keys(router.links).indexOf(link) ? 62 : -62; }

  host({host, stations, x, width}) {
    const name = host.name, half = width / 2 - 25;
    this.back.append(element("rect", {x: x - half, y: BRIDGE_Y - 44, width: 2 * half, height: LINK_Y - BRIDGE_Y + 44, rx: 14, class: "host"}));
    this.front.append(
      element("rect", {x: x - half + 14, y: BRIDGE_Y - 64, width: 44 + 17 * name.length, height: 38, rx: 8, class: "box"}),
      this.text(x - half + 36 + 8.5 * name.length, BRIDGE_Y - 35, name, "name"));
    this.place(`${name}/eth0`, x, LINK_Y);
    const bridges = [...new Set([...host.segments.map(one => one.bridge), ...stations.map(one => one.bridge)].filter(Boolean))];
    bridges.forEach((bridge, number) => {
      const bx = x + (number - (bridges.length - 1) / 2) * 190;
      this.box(`${name}/${bridge}`, bx, BRIDGE_Y, bridges.length > 1 ? 130 : 180, 46, "box", [[bridges.length > 1 ? bridge : `bridge ${bridge}`, "soft", 8]]);
    });
    host.segments.forEach((segment, number) => {
      const bx = x + (number - (host.segments.length - 1) / 2) * 190;
      const wide = host.segments.length > 1 ? 178 : 290, vtep = `${name}:${segment.vni}`;
      this.vteps.add(vtep);
      this.place(`${name}/${segment.tap}`, bx, TAP_Y);
      this.box(vtep, bx, VTEP_Y, wide, 88, "vtep", [
        [host.segments.length > 1 ? `VNI ${segment.vni}` : `VTEP, VNI ${segment.vni}`, "name", -6],
        [host.node ? segment.tap : "kernel driver", "mono", 24]], segment.vni);
      const kind = `inner ${this.colour(segment.vni)}`;
      if (segment.bridge) this.wire(`${name}/${segment.bridge}`, `${name}/${segment.tap}`, kind);
      this.wire(`${name}/${segment.tap}`, vtep, kind);
      this.wire(vtep, `${name}/eth0`, "");
    });
    this.box(`${name}/eth0`, x, LINK_Y, 260, 44, "box", [[host.addresses[0], "mono", 8]]);
    this.uplink(`${name}/eth0`, `net:${name}`, name);
    const order = [...stations].sort((a, b) => bridges.indexOf(a.bridge) - bridges.indexOf(b.bridge));
    order.forEach((station, number) => this.station(station, x + (number - (stations.length - 1) / 2) * 190, stations.length));
  }

  station(station, x, count) {
    const stop = `${station.name}/eth0`;
    this.box(stop, x, STATION_Y, count > 1 ? 172 : 210, 88, "box station",
      [[station.name, "name", -8], [station.addresses[0] ?? "", "mono", 24]], station.vni);
    if (station.bridge) this.wire(stop, `${station.host}/${station.bridge}`, `inner ${this.colour(station.vni)}`);
  }

  router({router, x}) {
    this.box(`router:${router.name}`, x, LINK_Y - 30, 220, 64, "box", [[`router ${router.name}`, "name", 10]]);
    for (const link of Object.keys(router.links)) {
      const stop = `${router.name}/${link}`;
      this.place(stop, x + this.side(router, link), LINK_Y + 2);
      this.join(`router:${router.name}`, stop);
      this.uplink(stop, `net:${stop}`, `${router.name}-${link}`);
    }
  }

  uplink(stop, port, wire) {
    const line = this.wire(stop, port, ""), {x} = this.at(stop);
    const label = this.text(x + 18, (LINK_Y + NET_Y) / 2 + 10, "", "pinch", "start");
    this.front.append(label);
    this.wires.set(wire, {line, label});
  }

  narrow(host, mtu, full) {
    const wire = this.wires.get(host);
    if (!wire) return;
    wire.line.classList.toggle("narrow", mtu < full);
    wire.label.textContent = mtu < full ? `▸◂ only ${mtu} bytes` : "";
  }

  // -- pieces

  text(x, y, content, kind, anchor = "middle") {
    return element("text", {x, y, class: kind, "text-anchor": anchor}, content);
  }

  box(place, x, y, width, height, kind, lines, vni = null) {
    this.place(place, x, y);
    const shape = element("rect", {x: x - width / 2, y: y - height / 2, width, height, rx: 10, class: `${kind} ${this.colour(vni)}`});
    this.shapes.set(place, shape);
    this.front.append(shape, ...lines.map(([content, style, dy]) => this.text(x, y + dy, content, style)));
  }

  place(name, x, y) { this.places.set(name, {x, y}); if (!this.ways.has(name)) this.ways.set(name, []); }

  at(name) { return this.places.get(name) ?? {x: 0, y: 0}; }

  join(one, other) { this.ways.get(one)?.push(other); this.ways.get(other)?.push(one); }

  wire(one, other, kind) {
    this.join(one, other);
    const a = this.at(one), b = this.at(other);
    return this.lines.appendChild(element("path", {d: `M${a.x} ${a.y} V${(a.y + b.y) / 2} H${b.x} V${b.y}`, class: `wire ${kind}`}));
  }

  // The places between two stops, both included.
  route(from, to) {
    const before = new Map([[from, null]]), queue = [from];
    while (queue.length && !before.has(to)) {
      const place = queue.shift();
      for (const next of this.ways.get(place) ?? []) if (!before.has(next)) { before.set(next, place); queue.push(next); }
    }
    if (!before.has(to)) return [to];
    const way = [];
    for (let place = to; place !== null; place = before.get(place)) way.unshift(place);
    return way;
  }

  light(places) {
    for (const shape of this.svg.querySelectorAll(".lit")) shape.classList.remove("lit");
    for (const place of places) this.shapes.get(place)?.classList.add("lit");
  }

  badge(host, text) {
    const {x} = this.at(`${host}/eth0`), width = Math.max(180, text.length * 13.5 + 30);
    const made = element("g", {class: "badge"},
      element("rect", {x: x - width / 2, y: VTEP_Y + 22, width, height: 42, rx: 8}),
      this.text(x, VTEP_Y + 51, text, ""));
    this.badges.append(made);
    setTimeout(() => made.remove(), 6000);
  }
}

function describe(scene) {
  const hosts = scene.hosts.map(host => {
    const stations = scene.containers.filter(one => one.host === host.name).map(one => `${one.name} (${one.addresses[0]})`);
    const segments = host.segments.map(one => one.vni).join(", ");
    return `Host ${host.name}, ${host.addresses[0]}, with a VTEP for VNI ${segments} and ${stations.join(", ") || "no container"}.`;
  });
  return hosts.join(" ");
}

// A packet on the drawing: a label, and an envelope around it while it is wrapped.
export class Token {
  constructor(stage, word, place, kind = "") {
    this.stage = stage;
    this.word = word;
    this.group = element("g", {class: `token ${kind}`},
      element("rect", {x: -76, y: -50, width: 152, height: 88, rx: 14, class: "outer"}),
      element("text", {x: 0, y: -27, class: "tag"}),
      element("rect", {x: -56, y: -19, width: 112, height: 44, rx: 9, class: "inner"}),
      element("text", {x: 0, y: 12, class: "label"}, word));
    stage.tokens.append(this.group);
    this.move(stage.at(place));
  }

  move({x, y}) { this.x = x; this.y = y; this.group.setAttribute("transform", `translate(${x} ${y})`); }

  wrap(vni) {
    this.group.classList.toggle("wrapped", vni !== null);
    if (vni !== null) this.group.querySelector(".tag").textContent = `VNI ${vni}`;
  }

  copy(place) {
    const made = new Token(this.stage, this.word, place);
    made.group.setAttribute("class", this.group.getAttribute("class"));
    made.group.querySelector(".tag").textContent = this.group.querySelector(".tag").textContent;
    return made;
  }

  end(kind, text) {
    this.group.classList.add(kind);
    this.group.append(element("text", {x: 0, y: 66, class: `end ${kind === "lost" ? "bad" : ""}`}, text));
  }

  remove(after = 0) {
    setTimeout(() => { this.group.classList.add("gone"); setTimeout(() => this.group.remove(), 600); }, after);
  }
}
