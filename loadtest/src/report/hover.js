"use strict";
for (const svg of document.querySelectorAll("svg.chart")) {
  const hover = svg.querySelector(".hover");
  const figure = svg.closest("figure");
  const read = (path) => (path.dataset.points || "").split(";").filter(Boolean).map((point) => {
    const [x, y, at, value] = point.split("|");
    return { x: +x, y: +y, at, value };
  });
  const lines = [...svg.querySelectorAll("path[data-points]")].map((path) => ({ name: path.dataset.name, points: read(path) }));
  const zones = [...svg.querySelectorAll("rect.zone")].map((rect) => ({
    name: rect.dataset.name,
    x: +rect.getAttribute("x") + +rect.getAttribute("width") / 2,
    half: +rect.getAttribute("width") / 2,
    rows: (rect.dataset.rows || "").split(";").filter(Boolean).map((row) => row.split("|")),
  }));
  const stops = [...new Set(lines.flatMap((line) => line.points.map((point) => point.x)).concat(zones.map((zone) => zone.x)))].sort((a, b) => a - b);
  const box = svg.viewBox.baseVal;
  let tip = null, at = -1;

  const draw = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    hover.append(element);
  };
  const clear = () => {
    hover.replaceChildren();
    if (tip) tip.remove();
    tip = null;
  };
  const show = (x) => {
    clear();
    const zone = zones.find((zone) => Math.abs(zone.x - x) <= zone.half);
    let head = "", rows = [];
    if (zone) {
      x = zone.x;
      head = zone.name;
      rows = zone.rows;
    } else {
      const near = lines.map((line) => {
        let best = null;
        for (const point of line.points) if (!best || Math.abs(point.x - x) < Math.abs(best.x - x)) best = point;
        return best && { name: line.name, ...best };
      }).filter((point) => point && Math.abs(point.x - x) < box.width / 12);
      if (!near.length) return;
      const nearest = near.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));
      x = nearest.x;
      head = nearest.at;
      rows = near.map((point) => [point.name, point.value]);
      for (const point of near) draw("circle", { cx: point.x, cy: point.y, r: 4 });
    }
    draw("path", { class: "rule", d: `M${x} 28V${box.height - 50}` });
    tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("role", "status");
    const title = document.createElement("b");
    title.textContent = head;
    tip.append(title);
    for (const [name, value] of rows) {
      const row = document.createElement("div");
      row.textContent = `${name}: ${value}`;
      tip.append(row);
    }
    figure.append(tip);
    const frame = figure.getBoundingClientRect(), place = svg.getBoundingClientRect();
    const left = place.left - frame.left + (x / box.width) * place.width;
    const right = left + 14 + tip.offsetWidth <= frame.width;
    tip.style.left = `${Math.max(0, right ? left + 14 : left - 14 - tip.offsetWidth)}px`;
    tip.style.top = `${place.top - frame.top + 34}px`;
  };
  const pointed = (event) => {
    const place = svg.getBoundingClientRect();
    const x = ((event.clientX - place.left) / place.width) * box.width;
    at = stops.findIndex((stop) => stop >= x);
    show(x);
  };
  svg.addEventListener("pointermove", pointed);
  svg.addEventListener("pointerdown", pointed);
  svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") clear(); });
  svg.addEventListener("blur", clear);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") clear();
    if (!step || !stops.length) return;
    event.preventDefault();
    at = Math.min(stops.length - 1, Math.max(0, at + step));
    show(stops[at]);
  });
}
