// The FDB of each VTEP: what it has learned, how old that is, and what it dropped.

const FLASH = 4000, GONE = 3000;   // milliseconds

export class Tables {
  constructor(scene) {
    this.scene = scene;
    this.hosts = new Map(scene.hosts.map(host => [host.name, {entries: new Map(), segments: [], drops: new Map(), engine: "", offset: 0}]));
    this.names = new Map(scene.containers.map(one => [one.mac, one.name]));
    this.addresses = new Map(scene.hosts.flatMap(host => host.addresses.map(address => [address, host.name])));
    this.root = document.getElementById("vteps");
    this.root.replaceChildren(...scene.hosts.map(host => this.card(host)));
    this.timer = setInterval(() => this.draw(), 500);
  }

  stop() { clearInterval(this.timer); }

  card(host) {
    const made = document.createElement("section");
    made.className = "fdb"; made.id = `fdb-${host.name}`;
    made.setAttribute("aria-label", `FDB of host ${host.name}`);
    made.innerHTML = "<h3><span></span><span class='soft'></span></h3><table><thead><tr><th scope='col'>station</th><th scope='col'>behind</th><th scope='col'>age</th></tr></thead><tbody></tbody></table><p class='empty'></p><p class='drops'></p><p class='drops faults'></p>";
    made.querySelector("h3 span").textContent = `FDB of ${host.name}`;
    return made;
  }

  name(mac) { return this.names.get(mac) ?? mac; }
  where(address) { const name = this.addresses.get(address); return name ? `${name} ${address}` : address; }

  // The whole table as it was read; what came or went since is marked.
  snapshot(body) {
    const host = this.hosts.get(body.host);
    if (!host) return;
    host.trouble = body.trouble ?? "";
    if (!body.entries) { this.draw(); return; }
    host.engine = body.engine; host.segments = body.segments; host.faults = body.faults; host.offset = Date.now() / 1000 - body.time;
    const now = new Set();
    for (const entry of body.entries) {
      const key = `${entry.vni} ${entry.mac}`;
      now.add(key);
      this.put(host, key, {...entry, heard: entry.age === null ? null : body.time - entry.age});
    }
    for (const [key, entry] of host.entries) if (!now.has(key) && !entry.gone) this.take(host, key, "gone");
    this.draw();
  }

  event(body) {
    const host = this.hosts.get(body.host);
    if (!host || !body.mac || body.mac === "00:00:00:00:00:00") return;
    const key = `${body.vni} ${body.mac}`;
    if (body.event === "learned" || body.event === "moved")
      this.put(host, key, {vni: body.vni, mac: body.mac, state: "dynamic", dst: [body.remote.address], heard: body.time});
    else if (["aged", "evicted", "fdb_deleted"].includes(body.event)) this.take(host, key, body.event === "fdb_deleted" ? "forgotten" : body.event);
    this.draw();
  }

  put(host, key, entry) {
    const old = host.entries.get(key), until = performance.now() + FLASH;
    if (!old || old.gone) Object.assign(entry, {mark: "new", until});
    else if (old.dst.join() !== entry.dst.join()) Object.assign(entry, {mark: "moved", until});
    else Object.assign(entry, {mark: old.mark, until: old.until});
    host.entries.set(key, entry);
  }

  take(host, key, why) {
    const entry = host.entries.get(key);
    if (entry && !entry.gone) Object.assign(entry, {gone: true, mark: why, until: performance.now() + GONE});
  }

  drop(body) {
    const host = this.hosts.get(body.host), old = host?.drops.get(body.reason)?.count ?? 0;
    host?.drops.set(body.reason, {count: old + body.count, meaning: body.meaning});
    this.draw();
  }

  draw() { for (const [name, host] of this.hosts) this.drawHost(name, host); }

  drawHost(name, host) {
    const card = document.getElementById(`fdb-${name}`), now = performance.now();
    for (const [key, entry] of host.entries) if (entry.gone && entry.until < now) host.entries.delete(key);
    const mtu = [...new Set(host.segments.map(one => one.mtu))].join(", ");
    card.querySelector("h3 .soft").textContent = [host.engine, mtu && `MTU ${mtu}`].filter(Boolean).join(" · ");
    card.querySelector("tbody").replaceChildren(...[...host.entries.values()].map(entry => this.row(entry, host, now)));
    card.querySelector("table").hidden = !host.entries.size;
    const remotes = [...new Set(host.segments.flatMap(one => one.remotes.map(remote => this.addresses.get(remote.address) ?? remote.address)))];
    card.querySelector(".empty").textContent = remotes.length ? `${host.entries.size ? "all else" : "empty: everything"} goes to ${remotes.join(", ")}` : "";
    card.querySelector(".faults").textContent = [...(host.faults ?? []).map(text => `⚠ fault: ${text}`), host.trouble && `⚠ ${host.trouble}`].filter(Boolean).join("; ");
    card.querySelector(".drops").textContent = [...host.drops].map(([reason, {count, meaning}]) => `✕ dropped ${count}: ${reason} (${meaning})`).join("; ");
  }

  row(entry, host, now) {
    const made = document.createElement("tr"), marked = entry.mark && entry.until > now;
    made.className = entry.gone ? "gone" : marked ? "new" : "";
    const hosts = entry.dst.map(one => this.addresses.get(one) ?? one).join(", ");
    const exact = [this.names.has(entry.mac) ? entry.mac : "", ...entry.dst.filter(one => this.addresses.has(one))].filter(Boolean);
    const who = cell("", ["who", this.name(entry.mac)], ["soft", host.segments.length > 1 ? ` VNI ${entry.vni}` : ""]);
    if (marked) who.append(span(`mark ${entry.mark}`, ` ${entry.mark === "new" ? "+ new" : entry.mark === "moved" ? "⇄ moved" : entry.mark}`));
    who.append(span("mac", exact.join(" → ")));
    made.append(who, cell("", ["where", hosts]), this.age(entry, host));
    return made;
  }

  age(entry, host) {
    const made = document.createElement("td");
    made.className = "age";
    const limit = host.segments.find(one => one.vni === entry.vni)?.ageing ?? 300;
    if (entry.state !== "dynamic" || entry.heard === null) { made.textContent = entry.state === "dynamic" ? "—" : `${entry.state}, stays`; return made; }
    const age = Math.max(0, Date.now() / 1000 - host.offset - entry.heard), left = Math.max(0, 1 - age / limit);
    const meter = made.appendChild(document.createElement("div"));
    meter.className = "meter";
    const bar = meter.appendChild(document.createElement("i"));
    bar.style.width = `${left * 100}%`;
    meter.append(span("", `${Math.floor(age)}/${limit} s`));
    return made;
  }
}

function span(kind, text) { return Object.assign(document.createElement("span"), {className: kind, textContent: text}); }
function cell(kind, ...spans) { const made = document.createElement("td"); made.className = kind; made.append(...spans.map(([k, t]) => span(k, t))); return made; }
