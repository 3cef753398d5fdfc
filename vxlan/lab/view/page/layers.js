// The packet in hand: a strip of its bytes, and its headers from the outside in.
// A header is known by its place from the inside, so that wrapping adds and unwrapping
// takes away outer headers, and the inner ones stay where they are.

export class Layers {
  constructor() {
    this.list = document.getElementById("layers");
    this.strip = document.getElementById("strip");
    this.text = document.getElementById("strip-text");
    this.open = new Set(["VXLAN"]);
    this.shown = null;
  }

  show(name, layers, colour, place) {
    if (this.shown === layers) return;
    this.shown = layers;
    document.getElementById("no-packet").hidden = true;
    document.getElementById("packet-name").textContent = name;
    this.list.parentElement.className = `packet ${colour}`;
    this.drawStrip(layers, place);
    this.drawList(layers);
  }

  drawStrip(layers, place) {
    const total = layers.reduce((sum, layer) => sum + layer.length, 0);
    this.strip.replaceChildren(...layers.map(layer => {
      const part = document.createElement("div");
      part.className = outside(layers, layer) ? "out" : "";
      part.style.flexGrow = layer.length;
      part.textContent = layer.length;
      part.title = layer.name;
      return part;
    }));
    const outer = layers.filter(layer => outside(layers, layer)).reduce((sum, layer) => sum + layer.length, 0);
    this.text.textContent = `${total} bytes` + (outer ? `: ${outer} of outer headers (═) + ${total - outer} of the frame inside (─)` : `, ${place}`);
    this.strip.setAttribute("aria-label", layers.map(layer => `${layer.name} ${layer.length} bytes`).join(", "));
  }

  drawList(layers) {
    const old = new Map([...this.list.children].filter(item => !item.classList.contains("leave")).map(item => [item.dataset.key, item]));
    const kept = new Set(), items = layers.map((layer, at) => {
      const key = `${layers.length - at} ${layer.name}`, item = old.get(key) ?? document.createElement("li");
      item.classList.remove("enter");   // moved in the document, it would begin anew
      if (!old.has(key)) item.classList.add("enter");
      kept.add(key);
      this.fill(item, key, layer, at, layers);
      return item;
    });
    const leaving = [...old.values()].filter(item => !kept.has(item.dataset.key));
    for (const item of leaving) {
      item.classList.add("leave");
      item.addEventListener("animationend", () => item.remove());
      setTimeout(() => item.remove(), 400);
    }
    this.list.replaceChildren(...leaving, ...items);
  }

  fill(item, key, layer, at, layers) {
    item.dataset.key = key;
    item.dataset.layer = layer.name;
    item.style.setProperty("--at", at);
    item.classList.toggle("out", outside(layers, layer));
    item.classList.toggle("vxlan", layer.name === "VXLAN");
    let details = item.querySelector("details");
    if (!details) {
      details = item.appendChild(document.createElement("details"));
      details.append(document.createElement("summary"), document.createElement("table"));
      details.open = this.open.has(layer.name);
      details.addEventListener("toggle", () => this.open[details.open ? "add" : "delete"](layer.name));
    }
    const where = layers.some(one => one.depth) && layer.name !== "VXLAN" && layer.name !== "payload" ? (layer.depth ? "inner " : "outer ") : "";
    details.querySelector("summary").replaceChildren(...[["name", where + layer.name], ["len", `${layer.length} B`], ["brief", layer.brief]]
      .map(([kind, text]) => Object.assign(document.createElement("span"), {className: kind, textContent: text})));
    details.querySelector("table").replaceChildren(...(layer.name === "VXLAN" ? picture(layer) : layer.fields.map(row)));
  }
}

function outside(layers, layer) { return layer.depth === 0 && layers.some(one => one.name === "VXLAN"); }

// The VXLAN header as RFC 7348 draws it: two words of four bytes.
function picture(layer) {
  const [flags, first, vni, second] = layer.fields;
  const valid = flags[2].startsWith("I");
  return [[[flags, `flags ${flags[1]}: ${valid ? "I ✓" : "no I ✕"}`], [first, `reserved ${first[1]}`]],
    [[vni, `VNI ${vni[1]} = ${vni[2]}`], [second, `reserved ${second[1]}`]]].map((cells, number) => {
    const made = document.createElement("tr");
    made.className = "word";
    made.append(...cells.map(([field, text], index) => {
      const cell = Object.assign(document.createElement("td"), {textContent: text, colSpan: [[1, 3], [3, 1]][number][index]});
      cell.className = field[0] === "reserved" ? "reserved" : "matters";
      return cell;
    }));
    return made;
  });
}

function row(cells) {
  const made = document.createElement("tr");
  made.append(...cells.map(text => Object.assign(document.createElement("td"), {textContent: text})));
  return made;
}
