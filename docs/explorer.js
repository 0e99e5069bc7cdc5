// Draws the points of explorer.md: accuracy against a cost, a colour a method; pointing at one shows its recipe.
"use strict";
(() => {
  const data = document.getElementById("explorer-points");
  if (!data) return;
  const points = JSON.parse(data.textContent);
  const root = document.getElementById("explorer");
  const COSTS = {
    density: "kept weights, % of the prunable ones",
    adds: "multiply-adds left, %",
    ms: "ms of the compiled net, one image",
  };
  const COLOURS = ["#0d7a6f", "#c2410c", "#4f46e5", "#b91c7b", "#a16207", "#0369a1", "#4d7c0f", "#7c3aed", "#be123c", "#57534e"];
  const SIZE = {width: 720, height: 420, left: 52, right: 12, top: 12, bottom: 46};
  const DEPTH = 12; // points of accuracy below the best that are shown to scale
  const hidden = new Set();

  const html = (name, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  };
  const svg = (name, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const choice = (label, options) => {
    const select = html("select", {ariaLabel: label, onchange: draw});
    for (const [value, text] of options) select.append(html("option", {value, textContent: text}));
    controls.append(html("label", {}, `${label} `, select));
    return select;
  };

  const controls = html("div", {className: "explorer-controls"});
  const picture = html("div");
  const legend = html("div", {className: "explorer-legend"});
  const recipe = html("p", {className: "explorer-recipe", ariaLive: "polite"});
  root.replaceChildren(controls, picture, recipe, legend);
  const places = [...new Set(points.map((point) => point.where))];
  const count = (where) => points.filter((point) => point.where === where).length;
  places.sort((a, b) => count(b) - count(a));
  const where = choice("Network, data", places.map((place) => [place, place]));
  const cost = choice("Cost", Object.entries(COSTS));

  function draw() {
    const here = points.filter((point) => point.where === where.value);
    for (const option of cost.options) option.disabled = !here.some((point) => point[option.value] != null);
    if (cost.selectedOptions[0].disabled) cost.value = "density";
    const shown = here.filter((point) => point[cost.value] > 0);
    const names = [...new Set(shown.map((point) => point.series))].sort();
    const visible = shown.filter((point) => !hidden.has(point.series));
    picture.replaceChildren(chart(visible, names));
    legend.replaceChildren(...names.map((name) => key(name, names)));
    recipe.textContent = `${visible.length} rows; point at one for its recipe.`;
  }

  function key(name, names) {
    const button = html("button", {type: "button", textContent: name, ariaPressed: String(!hidden.has(name))});
    button.style.setProperty("--colour", colour(name, names));
    button.onclick = () => {
      hidden.has(name) ? hidden.delete(name) : hidden.add(name);
      draw();
    };
    return button;
  }

  const colour = (name, names) => COLOURS[names.indexOf(name) % COLOURS.length];

  function chart(visible, names) {
    const {width, height, left, right, top, bottom} = SIZE;
    const costs = visible.map((point) => Math.log(point[cost.value]));
    const best = Math.max(...visible.map((point) => point.accuracy), 1);
    const low = Math.min(...visible.map((point) => Math.max(point.accuracy, best - DEPTH)), best) - 1; // deeper ones lie on the edge
    const high = best + 1;
    const [from, to] = [Math.min(...costs, 0) - 0.1, Math.max(...costs, 1) + 0.1];
    const x = (value) => left + ((Math.log(value) - from) / (to - from)) * (width - left - right);
    const y = (value) => top + (1 - (value - low) / (high - low)) * (height - top - bottom);
    const axes = svg("g", {class: "explorer-axes"});
    const text = (at, content, extra = {}) => axes.append(svg("text", {...at, ...extra}, content));
    for (const value of [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]) {
      if (Math.log(value) < from || Math.log(value) > to) continue;
      axes.append(svg("line", {x1: x(value), x2: x(value), y1: top, y2: height - bottom}));
      text({x: x(value), y: height - bottom + 16}, String(value), {"text-anchor": "middle"});
    }
    const step = [0.5, 1, 2, 5, 10, 20].find((size) => (high - low) / size <= 8) || 50;
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
      axes.append(svg("line", {x1: left, x2: width - right, y1: y(value), y2: y(value)}));
      text({x: left - 6, y: y(value) + 4}, value.toFixed(step < 1 ? 1 : 0), {"text-anchor": "end"});
    }
    text({x: (left + width) / 2, y: height - 8}, COSTS[cost.value], {"text-anchor": "middle"});
    text({x: 0, y: 0, transform: `translate(12 ${height / 2}) rotate(-90)`}, "accuracy, %", {"text-anchor": "middle"});
    const aside = (name) => (names.indexOf(name) / Math.max(names.length - 1, 1) - 0.5) * 24; // methods at one cost side by side
    const inside = (value) => y(Math.min(Math.max(value, low + 0.3), high - 0.3));
    const dots = visible.map((point) => dot(point, x(point[cost.value]) + aside(point.series), inside, colour(point.series, names)));
    return svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `accuracy against ${COSTS[cost.value]}`}, axes, ...dots);
  }

  function dot(point, x, y, fill) {
    const {accuracy, spread, seeds, collapsed} = point;
    const said =
      `${point.row} (${point.allocation || "dense"}): ${accuracy.toFixed(2)}${spread == null ? "" : ` ± ${spread.toFixed(2)}`} %, ` +
      `${seeds} seed${seeds > 1 ? "s" : ""}${collapsed ? `, ${collapsed} more collapsed` : ""}; ${point.recipe}`;
    const group = svg("g", {class: "explorer-point", tabindex: 0, style: `--colour: ${fill}`});
    if (spread) group.append(svg("line", {x1: x, x2: x, y1: y(accuracy - spread), y2: y(accuracy + spread)}));
    group.append(svg("circle", {cx: x, cy: y(accuracy), r: 5}), svg("title", {}, said));
    group.onmouseenter = group.onfocus = () => (recipe.textContent = said);
    return group;
  }

  draw();
})();
