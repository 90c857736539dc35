// Line charts, drawn as wide as their place is, in the page's own colours.

const HEIGHT = 210, LEFT = 50, RIGHT = 14, TOP = 12, BOTTOM = 26;

/** Round marks between two numbers, about `count` of them. */
function ticks(low, high, count = 4) {
  const raw = (high - low || 1) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + 1e-9 * step; at += step) found.push(at);
  return found;
}

/** A mark on the axis, with as many digits as tell it from the next. */
function marked(value, step, format) {
  const digits = Math.max(0, Math.ceil(-Math.log10(step * (format === percent ? 100 : 1)) - 1e-9));
  return format === percent ? `${minus((100 * value).toFixed(digits))}%` : minus(value.toFixed(digits));
}

/**
 * A chart in a box that redraws it when its width changes.
 *
 * @param label what it shows, for who cannot see it.
 * @param xs where the values stand; numbers.
 * @param series {label, tint, values, lone} each; null is no value, `lone` the places that no line joins.
 * @param names of the places, if they are no plain numbers.
 * @param format of the values.
 * @param floor the axis begins here at the highest.
 */
function chart({ label, xs, series, names = null, format = number, floor = null }) {
  const box = h("div", { class: "plot" });
  let width = 0;
  new ResizeObserver(([entry]) => {
    const found = Math.round(entry.contentRect.width);
    if (!found || found === width) return;
    width = found;
    box.replaceChildren(plotted(width, label, xs, series, names, format, floor));
  }).observe(box);
  return box;
}

function plotted(width, label, xs, series, names, format, floor) {
  const values = series.flatMap((one) => one.values).filter((value) => value !== null && value !== undefined);
  let low = Math.min(...values), high = Math.max(...values);
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  [low, high] = [floor === null ? low - room : Math.min(floor, low), high + room];
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const inset = names ? 14 : 0;
  const across = (x) => LEFT + inset + ((x - first) / (last - first || 1)) * (width - LEFT - RIGHT - 2 * inset);
  const up = (y) => HEIGHT - BOTTOM - ((y - low) / (high - low)) * (HEIGHT - BOTTOM - TOP);
  const marks = names ? xs.map((_, place) => place) : ticks(first, last, Math.max(2, Math.floor(width / 90)));
  const skip = names ? Math.ceil((xs.length * 34) / (width - LEFT - RIGHT)) : 1;
  const levels = ticks(low, high), step = levels[1] - levels[0] || 1;
  return draw("svg", { class: "chart", role: "img", "aria-label": label, viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT },
    levels.map((y) => [
      draw("line", { x1: LEFT, x2: width - RIGHT, y1: up(y), y2: up(y), stroke: "currentColor", "stroke-opacity": 0.13 }),
      draw("text", { x: LEFT - 9, y: up(y) + 4, "text-anchor": "end" }, marked(y, step, format)),
    ]),
    marks.map((mark, place) => names
      ? (xs.length - 1 - place) % skip === 0 && draw("text", { x: across(xs[mark]), y: HEIGHT - 6, "text-anchor": "middle" }, names[mark])
      : draw("text", { x: across(mark), y: HEIGHT - 6, "text-anchor": "middle" }, String(Math.round(mark)))),
    series.map((one) => line(one, xs, across, up, names, format)));
}

function line({ label, tint, values, lone = [] }, xs, across, up, names, format) {
  const joined = xs.map((x, place) => [x, values[place], place]).filter(([, y]) => y !== null && y !== undefined);
  const main = joined.filter(([, , place]) => !lone[place]);
  const dots = names ? joined : joined.slice(-1);
  return draw("g", { style: { color: tint } },
    draw("path", { d: main.map(([x, y], n) => `${n ? "L" : "M"}${across(x)} ${up(y)}`).join(""), fill: "none",
      stroke: "currentColor", "stroke-width": 2.2, "stroke-linejoin": "round" }),
    dots.map(([x, y, place]) => draw("circle", { cx: across(x), cy: up(y), r: 4, stroke: "currentColor", "stroke-width": 2,
      style: { fill: lone[place] ? "var(--surface)" : "currentColor" } },
    draw("title", {}, `${label}, ${names ? names[place] : x}: ${format(y)}`))));
}

const tint = (place) => `var(--run-${place % 8})`;

function legend(series) {
  return h("ul", { class: "legend" }, series.map((one) =>
    h("li", {}, h("span", { class: "dot", style: { "--tint": one.tint } }), one.label)));
}
