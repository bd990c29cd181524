"use strict";
// Reads values off the plots: of curves those at the pointer's time, of bars what they stand for.
for (const plot of document.querySelectorAll(".plot")) {
  const svg = plot.querySelector("svg"), data = JSON.parse(plot.querySelector("script").textContent);
  const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
  const guide = plot.appendChild(Object.assign(document.createElement("div"), { className: "guide" }));
  const tip = plot.appendChild(Object.assign(document.createElement("div"), { className: "tip" }));
  const hide = () => { guide.style.display = tip.style.display = "none"; };
  const show = (text, x, y) => {
    const frame = svg.getBoundingClientRect();
    tip.textContent = text;
    tip.style.display = "block";
    const left = (x / width) * frame.width, wide = tip.offsetWidth;
    tip.style.left = `${left + 14 + wide > frame.width ? Math.max(0, left - wide - 14) : left + 14}px`;
    tip.style.top = `${(y / height) * frame.height + 10}px`;
  };
  const nearest = (xs, x) => {
    let low = 0, high = xs.length - 1;
    while (high - low > 1) { const middle = (low + high) >> 1; if (xs[middle] < x) low = middle; else high = middle; }
    return Math.abs(xs[low] - x) < Math.abs(xs[high] - x) ? low : high;
  };
  const number = (value) => value === null ? "no number" : Number(value.toPrecision(4)).toLocaleString("en");
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * width, y = ((event.clientY - frame.top) / frame.height) * height;
    hide();
    const area = data.areas.find(([x0, y0, x1, y1]) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
    if (area) { show(area[4], x, y); return; }
    const axes = data.axes.find(({ box: [x0, y0, x1, y1] }) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
    if (!axes) return;
    const [x0, y0, x1, y1] = axes.box, [from, to] = axes.limits;
    const time = from + ((x - x0) / (x1 - x0)) * (to - from);
    const lines = axes.series.filter((one) => one.x.length).map((one) => {
      const index = nearest(one.x, time);
      return `${one.name} ${number(one.y[index])}  (at ${number(one.x[index])} ${axes.unit})`;
    });
    if (!lines.length) return;
    Object.assign(guide.style, { display: "block", left: `${(x / width) * 100}%`, top: `${(y0 / height) * 100}%`, height: `${((y1 - y0) / height) * 100}%` });
    show(lines.join("\n"), x, y);
  });
}
document.querySelector("button.theme").addEventListener("click", () => {
  const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = (root.dataset.theme || (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
});
