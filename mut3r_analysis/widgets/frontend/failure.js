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

function renderFailure({ model, el }) {
  const held = model.get("held");
  const palette = octets(model.get("palette"));
  const cuePalette = octets(model.get("cue_palette"));
  const differencePalette = octets(model.get("difference_palette"));
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
  let heads = null;
  let opened = null;
  const go = (frame) => set({ frame, patch: {} });

  // --- controls --------------------------------------------------------------------------------
  const frameSlider = slider(
    "Frame", count, (at) => String(held.frames[at]), (at) => go(held.frames[at]),
  );
  const metricMenu = menu(
    "Rank by", held.series.map((each) => [each.name, each.label]), model.get("metric"),
    (value) => set({ metric: value }),
  );
  const words = (rank) =>
    rank === "difference" ? `${held.runs[1]} ${held.map.error ? "worse than" : "against"} ${held.runs[0]}` : rank;
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
  const inPlace = make("div", { class: "m3-in-place" });
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
    detail, status, inPlace,
    make("p", { class: "m3-note" }, held.notes.join(" ")),
    make("p", { class: "m3-keys" }, kbd("←"), kbd("→"), " frame ", kbd("W"),
      " next worst frame — click a strip to go to a frame, a patch to hold it",
      ...(held.difference ? [", a site, layer or head to open its attention"] : [" in a linked attention explorer"])),
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
        go(held.frames[at(event)]);
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
        onclick: () => go(held.frames[at]) }, `${held.frames[at]}`, make("small", {}, number(value))));
    }));
  }

  // --- the frame -------------------------------------------------------------------------------
  const { rows, columns } = held.grid;
  const { height, width } = held.image;
  const one = (owner, title, bar) => {
    const cells = new Cells(rows, columns, {
      label: `${owner}: ${title}`,
      hover: (cell) => { hovered = cell; paint(); },
      leave: () => { hovered = -1; paint(); },
      choose: (cell) => {
        root.focus({ preventScroll: true });
        if (cell >= 0) set({ patch: { patch_row: Math.floor(cell / columns), patch_col: cell % columns } });
      },
    });
    const caption = make("figcaption", {}, title);
    return { cells, bar, caption, element: make("figure", {}, caption, cells.canvas, ...(bar ? [bar.element] : [])) };
  };
  const pictures = held.runs.map((name, run) => ({
    frame: one(name, "frame, outlines: motion"),
    map: one(name, held.map.title, colorBar(palette)),
    ...(held.cues[run] ? { cue: one(name, "motion score", colorBar(cuePalette)) } : {}),
  }));
  pictures.forEach((shown, run) => {
    for (const each of Object.values(shown)) each.cells.canvas.dataset.run = run;
  });
  const difference = held.difference && one("both", held.difference.title, colorBar(differencePalette));
  const ranking = make("div", { class: "m3-ranking", "aria-label": "What changed most" });
  if (difference) {
    detail.append(make("section", { class: "m3-run m3-difference" },
      make("div", { class: "m3-pair" }, difference.element, ranking)));
  }
  detail.append(...pictures.map((each, run) =>
    make("section", { class: "m3-run" },
      ...(several ? [make("h4", {}, held.runs[run])] : []),
      make("div", { class: "m3-pair" }, ...Object.values(each).map((shown) => shown.element)))));

  /** The patch that is looked at: the one clicked, or the one where the runs differ most. */
  function chosenPatch() {
    const { patch_row: row, patch_col: column } = model.get("patch");
    if (row !== undefined) return [row, column];
    return current && current.worst;
  }

  // One scale for all frames.
  const mapColors = scale(palette, held.map.low, held.map.high);
  const changeColors = held.difference && scale(differencePalette, -held.difference.limit, held.difference.limit);

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
      maps: content.maps.map((at) => take(at) && floats(take(at))),
      difference: take(content.difference) && floats(take(content.difference)),
      cues: content.cues.map((at) => take(at) && floats(take(at))),
      worst: content.worst_patch,
    };
    found.heats = found.maps.map((each) => each && heat(each, width, height, mapColors, palette));
    found.change = found.difference && heat(found.difference, width, height, changeColors, differencePalette);
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
      await rank();
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

  // --- what changed ----------------------------------------------------------------------------
  async function rank() {
    const patch = chosenPatch();
    const key = JSON.stringify([model.get("frame"), patch]);
    if (!held.difference || !patch || (heads && heads.key === key)) return;
    const [row, column] = patch;
    try {
      const asked = { ask: "heads", frame: model.get("frame"), patch_row: row, patch_col: column };
      heads = { key, patch, ...(await link.ask(asked)).content };
    } catch (error) {
      heads = { key, patch, reason: error.message };
    }
    listHeads();
    if (opened) await open(opened.place);
  }

  function listHeads() {
    const title = `Patch (row ${heads.patch[0]}, column ${heads.patch[1]})`;
    if (heads.reason) {
      ranking.replaceChildren(make("p", { class: "m3-note" }, `${title}: ${heads.reason}`));
      return;
    }
    const text = ({ site, layer, head }) => [site, ...(layer === undefined ? [] : [`layer ${layer}`]),
      ...(head === undefined ? [] : [`head ${head}`])].join(", ");
    const list = (name, places) => make("div", {}, make("span", { class: "m3-quiet" }, name),
      make("ol", { class: "m3-places" }, ...places.map((place) => {
        const button = make("button", { type: "button", onclick: () => open(place) }, text(place),
          make("small", {}, number(place.size)));
        button.dataset.place = text(place);
        return make("li", {}, button);
      })));
    ranking.replaceChildren(
      make("figcaption", {}, `${title}: what changed most`),
      make("p", { class: "m3-note" }, heads.label),
      list("Heads", heads.heads), list("Layers", heads.layers), list("Sites", heads.sites),
    );
  }

  /** Open the attention of both runs below, at a site, and a layer and a head where one is meant. */
  async function open(place) {
    const frame = model.get("frame");
    try {
      if (!opened || opened.frame !== frame) {
        const { content } = await link.ask({ ask: "attention held", frame });
        shut();
        const close = make("button", { type: "button", onclick: shut }, "Close");
        const box = make("div");
        const view = { ...viewOf(content.held, place), held: content.held, palette: model.get("cue_palette"), frame,
          pinned: true, scale: "linear", opacity: 0.7, outlines: ["cue", "truth"], all_heads: true, own_controls: true };
        const inner = nested(view, link, "attention");
        inPlace.replaceChildren(make("div", { class: "m3-worst-line" }, close), box);
        opened = { frame, held: content.held, inner, close: renderAttention({ model: inner, el: box }) };
      } else {
        for (const [name, value] of Object.entries(viewOf(opened.held, place))) opened.inner.set(name, value);
      }
      opened.place = place;
    } catch (error) {
      shut();
      inPlace.replaceChildren(make("p", { class: "m3-note m3-error" }, error.message));
    }
  }

  /** What an attention explorer shows of the patch at a place. */
  function viewOf(known, place) {
    const site = known.sites.find((each) => each.name === place.site);
    if (!site) throw new Error(`${place.site} has tokens of other frames, which are not shown.`);
    const [row, column] = chosenPatch();
    const lattice = known.streams[site.queries];
    const patches = ["image", "patches"].some((name) => [site.queries, site.keys].includes(name));
    return {
      site: site.name,
      layer: place.layer === undefined ? site.layers[0] : place.layer,
      head: place.head === undefined ? "mean" : place.head,
      show: site.rows ? "weights" : site.statistics[0].name,
      token: patches
        ? { token: "patch", patch_row: row, patch_col: column }
        : { token: "state", patch_row: Math.floor(lattice.rows / 2), patch_col: Math.floor(lattice.columns / 2) },
    };
  }

  function shut() {
    if (opened) opened.close();
    opened = null;
    inPlace.replaceChildren();
  }

  function paint() {
    const each = held.has_cue ? 3 : 2;
    const across = Math.max(120, Math.min(340, Math.floor(((detail.clientWidth || 880) - 16 * (each - 1)) / each)));
    const patch = chosenPatch();
    const chosen = patch ? patch[0] * columns + patch[1] : -1;
    if (difference) {
      difference.cells.resize(across, height / width);
      difference.cells.draw({ picture: current && current.change, smooth: false, chosen, hovered });
      difference.bar.update(current && current.change && changeColors, held.difference.bar);
    }
    pictures.forEach((shown, run) => {
      for (const part of Object.values(shown)) part.cells.resize(across, height / width);
      const cue = current && current.cues[run];
      const region = cue ? borders(cue.map((value) => value > held.cue_threshold), rows, columns) : [];
      const outlines = current
        ? [{ segments: current.truth, style: OUTLINES.truth }, { segments: region, style: OUTLINES.cue }]
        : [];
      const marks = { chosen, hovered, outlines };
      shown.frame.cells.draw({ picture: current && current.photograph, ...marks });
      const map = current && current.heats[run];
      shown.map.caption.textContent = map ? held.map.title : "Not known in this frame";
      shown.map.cells.draw({ picture: map, smooth: false, ...marks });
      shown.map.bar.update(map && mapColors, held.map.bar);
      if (shown.cue) {
        const colors = scale(cuePalette, 0, 1);
        shown.cue.cells.draw({ picture: current && current.backdrop, values: cue, colors, opacity: 0.75, ...marks });
        shown.cue.caption.textContent = cue ? "Motion score" : "Not scored in this frame";
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
      const what = held.map.error ? "mean depth error" : "mean depth";
      const means = current.maps.map((map, run) => map &&
        `${several ? `${held.runs[run]} ` : ""}${number(meanOver(map, row, column))}`).filter(Boolean);
      if (means.length) text += ` Patch (row ${row}, column ${column}): ${what} ${means.join(", ")}.`;
      if (current.difference) {
        text += ` ${held.difference.title}: ${number(meanOver(current.difference, row, column))}.`;
      }
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
    if (event.key === "ArrowLeft") go(held.frames[Math.max(0, at - 1)]);
    else if (event.key === "ArrowRight") go(held.frames[Math.min(count - 1, at + 1)]);
    else if (event.key.toLowerCase() === "w") {
      const order = ranked().map(([, place]) => place);
      if (order.length) go(held.frames[order[(order.indexOf(at) + 1) % order.length]]);
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
    shut();
    link.close();
  };
}
