// Failure explorer: errors over frames, and what a frame looked like.

/** Lines of runs: told apart by dashes as well as by colour. */
const LINES = [
  { color: "#0072b2", dash: "" },
  { color: "#d55e00", dash: "5 3" },
];
const SPACE = "http://www.w3.org/2000/svg";

function draw(tag, properties, ...children) {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A picture of one value per pixel; what is not known stays grey. */
function heat(values, width, height, colors, palette) {
  const canvas = make("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    const value = values[i];
    const color = Number.isFinite(value)
      ? palette.subarray(3 * colors.index(value), 3 * colors.index(value) + 3)
      : [150, 150, 150];
    image.data.set(color, 4 * i);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function render({ model, el }) {
  const held = model.get("held");
  const palette = octets(model.get("palette"));
  const cuePalette = octets(model.get("cue_palette"));
  const link = connect(model);
  const seen = remember(16);
  const count = held.frames.length;
  const several = held.runs.length > 1;
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  let strips = null;
  let current = null;
  let hovered = -1;

  // --- controls --------------------------------------------------------------------------------
  const frameSlider = slider(
    "Frame", count, (at) => String(held.frames[at]), (at) => set({ frame: held.frames[at] }),
  );
  const metricMenu = menu(
    "Rank by", held.series.map((each) => [each.name, each.label]), model.get("metric"),
    (value) => set({ metric: value }),
  );
  const words = (rank) =>
    rank === "difference" ? `${held.runs[1]} worse than ${held.runs[0]}` : rank;
  const rankMenu = menu(
    "of", held.ranks.map((each) => [each, words(each)]), model.get("rank"),
    (value) => set({ rank: value }),
  );
  const layerMenu = menu(
    "Look closer at layer", Array.from({ length: held.layers }, (_, at) => [at, String(at)]),
    model.get("layer"), (value) => set({ layer: Number(value) }),
  );
  const plot = make("div", { class: "m3-strips" });
  const worst = make("ol", { class: "m3-worst", "aria-label": "Worst frames" });
  const detail = make("div", { class: "m3-runs" });
  const status = make("p", { class: "m3-status", role: "status", "aria-live": "polite" });
  const legend = make("span", { class: "m3-legend" },
    ...held.runs.map((name, run) =>
      make("span", {}, lineMark(run), several ? `${name} — ${held.gates[run]}` : held.gates[run])));
  const kbd = (text) => make("kbd", {}, text);
  const root = make(
    "div", { class: "m3-explorer m3-failure", role: "group", "aria-label": "Failure explorer" },
    make("header", {}, make("h3", {}, "Failure explorer"), make("p", { class: "m3-reading" }, legend)),
    make("div", { class: "m3-controls" },
      frameSlider.element, metricMenu.element, ...(several ? [rankMenu.element] : []),
      ...(held.layers && !model.recorded ? [layerMenu.element] : [])),
    plot,
    make("div", { class: "m3-worst-line" }, make("span", {}, "Worst frames"), worst),
    detail, status,
    make("p", { class: "m3-note" }, held.notes.join(" ")),
    make("p", { class: "m3-keys" }, kbd("←"), kbd("→"), " frame ", kbd("W"),
      " next worst frame — click a strip to go to a frame, a patch to hold it in a linked attention explorer"),
  );
  el.append(root);
  const unfollow = ownControls(model, root);

  function lineMark(run) {
    const line = draw("line", { x1: 0, x2: 24, y1: 5, y2: 5, stroke: LINES[run].color, "stroke-width": 2,
      "stroke-dasharray": LINES[run].dash });
    return draw("svg", { width: 24, height: 10, "aria-hidden": "true" }, line);
  }

  // --- strips ----------------------------------------------------------------------------------
  const values = (metric, run) => {
    const at = held.series.findIndex((each) => each.name === metric);
    const start = (at * held.runs.length + run) * count;
    return strips.subarray(start, start + count);
  };
  let cursors = [];

  function buildStrips() {
    const width = Math.max(240, (plot.clientWidth || 880) - 250);
    const height = 40;
    const x = (at) => (count > 1 ? 4 + (at / (count - 1)) * (width - 8) : width / 2);
    cursors = [];
    plot.replaceChildren(...held.series.map(({ name, label }) => {
      const lines = held.runs.map((_, run) => values(name, run));
      const [low, high] = range(lines);
      const base = Math.min(0, low);
      const y = (value) => height - 4 - ((value - base) / (high - base)) * (height - 8);
      const paths = lines.map((line, run) => {
        let path = "";
        let open = false;
        line.forEach((value, at) => {
          if (!Number.isFinite(value)) {
            open = false;
            return;
          }
          // A number between two gaps is a short dash, not nothing.
          path += open ? `L${x(at).toFixed(1)},${y(value).toFixed(1)}`
            : `M${(x(at) - 1.5).toFixed(1)},${y(value).toFixed(1)}L${x(at).toFixed(1)},${y(value).toFixed(1)}`;
          open = true;
        });
        return draw("path", { d: path, fill: "none", stroke: LINES[run].color, "stroke-width": 1.6,
          "stroke-dasharray": LINES[run].dash, "stroke-linejoin": "round" });
      });
      const cursor = draw("line", { y1: 0, y2: height, class: "m3-cursor" });
      cursors.push({ cursor, x });
      const graph = draw("svg", { width, height, class: "m3-strip-graph", role: "img", "aria-label": label },
        draw("line", { x1: 0, x2: width, y1: height - 4, y2: height - 4, class: "m3-axis" }), ...paths, cursor);
      const at = (event) => {
        const box = graph.getBoundingClientRect();
        const part = ((event.clientX - box.left) / box.width * width - 4) / (width - 8);
        return Math.max(0, Math.min(count - 1, Math.round(part * (count - 1))));
      };
      graph.addEventListener("click", (event) => {
        root.focus({ preventScroll: true });
        set({ frame: held.frames[at(event)] });
      });
      graph.addEventListener("pointermove", (event) => tell(at(event), name));
      graph.addEventListener("pointerleave", () => describe());
      const button = make("button", { type: "button", class: "m3-strip-name", title: "Rank frames by this",
        onclick: () => set({ metric: name }) }, label);
      button.dataset.metric = name;
      return make("div", { class: "m3-strip-row" }, button, graph, make("span", { class: "m3-ends" }, `0–${number(high)}`));
    }));
  }

  function ranked() {
    const metric = model.get("metric");
    const item = held.series.find((each) => each.name === metric);
    const sign = item.higher_is_better ? -1 : 1;
    const rank = model.get("rank");
    const lines = held.runs.map((_, run) => values(metric, run));
    const bad = held.frames.map((_, at) =>
      sign * (rank === "difference" ? lines[1][at] - lines[0][at] : lines[held.runs.indexOf(rank)][at]));
    return bad.map((value, at) => [value, at]).filter(([value]) => Number.isFinite(value))
      .sort((a, b) => b[0] - a[0] || a[1] - b[1])
      .slice(0, held.worst).map(([value, at]) => [sign * value, at]);
  }

  function listWorst() {
    worst.replaceChildren(...ranked().map(([value, at]) => {
      const chosen = held.frames[at] === model.get("frame");
      return make("li", {}, make("button", { type: "button", "aria-pressed": String(chosen),
        onclick: () => set({ frame: held.frames[at] }) }, `${held.frames[at]}`, make("small", {}, number(value))));
    }));
  }

  // --- the frame -------------------------------------------------------------------------------
  const { rows, columns } = held.grid;
  const { height, width } = held.image;
  const pictures = held.runs.map((name, run) => {
    const one = (title, bar) => {
      const cells = new Cells(rows, columns, {
        label: `${name}: ${title}`,
        hover: (cell) => { hovered = cell; paint(); },
        leave: () => { hovered = -1; paint(); },
        choose: (cell) => {
          root.focus({ preventScroll: true });
          if (cell >= 0) set({ patch: { patch_row: Math.floor(cell / columns), patch_col: cell % columns } });
        },
      });
      cells.canvas.dataset.run = run;
      const caption = make("figcaption", {}, title);
      return { cells, bar, caption, element: make("figure", {}, caption, cells.canvas, ...(bar ? [bar.element] : [])) };
    };
    return {
      frame: one("frame, outlines: motion"),
      error: one("relative depth error", colorBar(palette)),
      ...(held.has_cue ? { cue: one("motion score", colorBar(cuePalette)) } : {}),
    };
  });
  detail.append(...pictures.map((each, run) =>
    make("section", { class: "m3-run" },
      ...(several ? [make("h4", {}, held.runs[run])] : []),
      make("div", { class: "m3-pair" }, ...Object.values(each).map((one) => one.element)))));

  async function load(frame) {
    const kept = seen.get(frame);
    if (kept) return kept;
    const { content, buffers } = await link.ask({ ask: "frame", frame });
    const take = (at) => (at === null ? null : buffers[at]);
    const image = take(content.image) && octets(take(content.image));
    const found = {
      photograph: image && photograph(image, width, height),
      backdrop: image && backdrop(image, width, height),
      truth: content.truth === null ? [] : borders(octets(take(content.truth)), height, width),
      errors: content.errors.map((at) => take(at) && floats(take(at))),
      cues: content.cues.map((at) => take(at) && floats(take(at))),
    };
    const errors = found.errors.filter(Boolean);
    if (errors.length) {
      // The greatest 2 % would leave the rest dark.
      found.colors = scale(palette, 0, range(errors, 0.02)[1]);
      found.heats = found.errors.map((each) => each && heat(each, width, height, found.colors, palette));
    }
    seen.set(frame, found);
    return found;
  }

  const refresh = latest(async () => {
    try {
      if (!strips) {
        strips = floats((await link.ask({ ask: "strips" })).buffers[0]);
        buildStrips();
      }
      current = await load(model.get("frame"));
      status.classList.remove("m3-error");
    } catch (error) {
      current = null;
      status.textContent = error.message;
      status.classList.add("m3-error");
    }
    if (strips) {
      controls();
      listWorst();
    }
    paint();
    root.dataset.drawn = String(Number(root.dataset.drawn || 0) + 1);
  });

  function paint() {
    const each = held.has_cue ? 3 : 2;
    const across = Math.max(120, Math.min(340, Math.floor(((detail.clientWidth || 880) - 16 * (each - 1)) / each)));
    const patch = model.get("patch");
    const chosen = patch.patch_row === undefined ? -1 : patch.patch_row * columns + patch.patch_col;
    pictures.forEach((shown, run) => {
      for (const one of Object.values(shown)) one.cells.resize(across, height / width);
      const cue = current && current.cues[run];
      const region = cue ? borders(cue.map((value) => value > held.cue_threshold), rows, columns) : [];
      const outlines = current
        ? [{ segments: current.truth, style: OUTLINES.truth }, { segments: region, style: OUTLINES.cue }]
        : [];
      const marks = { chosen, hovered, outlines };
      shown.frame.cells.draw({ picture: current && current.photograph, ...marks });
      const error = current && current.heats && current.heats[run];
      shown.error.caption.textContent = error ? "Relative depth error" : "No true depth to compare with";
      shown.error.cells.draw({ picture: error, smooth: false, ...marks });
      shown.error.bar.update(error && current.colors, "|aligned − true| / true");
      if (shown.cue) {
        const colors = scale(cuePalette, 0, 1);
        shown.cue.cells.draw({ picture: current && current.backdrop, values: cue, colors, opacity: 0.75, ...marks });
        shown.cue.caption.textContent = cue ? "Motion score" : "No cue in this run";
        shown.cue.bar.update(cue && colors, "motion score");
      }
    });
    if (current) describe();
  }

  function describe() {
    const at = held.frames.indexOf(model.get("frame"));
    if (!strips || !current) return;
    let text = summary(at);
    if (hovered >= 0) {
      const row = Math.floor(hovered / columns);
      const column = hovered % columns;
      const errors = current.errors.map((map, run) => map &&
        `${several ? `${held.runs[run]} ` : ""}${number(meanOver(map, row, column))}`).filter(Boolean);
      if (errors.length) text += ` Patch (row ${row}, column ${column}): mean depth error ${errors.join(", ")}.`;
    }
    status.textContent = text;
  }

  function meanOver(map, row, column) {
    const [high, wide] = [height / rows, width / columns];
    let total = 0;
    let known = 0;
    for (let y = row * high; y < (row + 1) * high; y += 1) {
      for (let x = column * wide; x < (column + 1) * wide; x += 1) {
        const value = map[y * width + x];
        if (Number.isFinite(value)) {
          total += value;
          known += 1;
        }
      }
    }
    return known ? total / known : NaN;
  }

  function summary(at) {
    const told = held.series.map(({ name, label }) =>
      `${label}: ${held.runs.map((_, run) => number(values(name, run)[at])).join(" / ")}`);
    return `Frame ${held.frames[at]}. ${told.join("; ")}.`;
  }

  function tell(at, name) {
    const { label } = held.series.find((each) => each.name === name);
    status.textContent = `Frame ${held.frames[at]} — ${label}: ${held.runs
      .map((run, index) => `${several ? `${run} ` : ""}${number(values(name, index)[at])}`).join(", ")}`;
  }

  function controls() {
    const at = held.frames.indexOf(model.get("frame"));
    frameSlider.update(at);
    metricMenu.update(model.get("metric"));
    rankMenu.update(model.get("rank"));
    layerMenu.update(model.get("layer"));
    for (const { cursor, x } of cursors) {
      cursor.setAttribute("x1", x(at));
      cursor.setAttribute("x2", x(at));
    }
    for (const button of plot.querySelectorAll(".m3-strip-name")) {
      button.setAttribute("aria-pressed", String(button.dataset.metric === model.get("metric")));
    }
  }

  // --- following the model ---------------------------------------------------------------------
  let planned = false;
  function follow() {
    if (planned) return;
    planned = true;
    queueMicrotask(() => {
      planned = false;
      refresh();
    });
  }

  takeKeys(root, (event) => {
    const at = held.frames.indexOf(model.get("frame"));
    if (event.key === "ArrowLeft") set({ frame: held.frames[Math.max(0, at - 1)] });
    else if (event.key === "ArrowRight") set({ frame: held.frames[Math.min(count - 1, at + 1)] });
    else if (event.key.toLowerCase() === "w") {
      const order = ranked().map(([, place]) => place);
      if (order.length) set({ frame: held.frames[order[(order.indexOf(at) + 1) % order.length]] });
    } else return false;
    return true;
  });

  const names = ["frame", "metric", "rank", "patch", "layer"];
  for (const name of names) model.on(`change:${name}`, follow);
  let drawnWidth = 0;
  const watcher = new ResizeObserver(() => {
    if (strips && plot.clientWidth !== drawnWidth) {
      drawnWidth = plot.clientWidth;
      buildStrips();
      controls();
    }
    paint();
  });
  watcher.observe(root);
  follow();
  return () => {
    for (const name of names) model.off(`change:${name}`, follow);
    watcher.disconnect();
    unfollow();
    link.close();
  };
}

export default { render };
